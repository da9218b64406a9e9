"""PCA and whitening, against FAISS's, and as a step and a file."""
import faiss
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from arcshard.console import UserError
from retrieval import Embeddings, Vectors, read_pipeline
from retrieval.state import State, unit
from retrieval.steps import Search
from retrieval.store import Provenance
from retrieval.whitening import Whitening, fit_whitening


def vectors(rows, dim=8, seed=0):
    """Unit rows around a common direction, that vary by 1/2^i along direction i."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(dim, dim)))
    return unit(axes[0] + rng.normal(size=(rows, dim)) * 0.5 ** np.arange(dim) @ axes)


@given(st.sampled_from([(None, 1.0), (3, 1.0), (3, 0.0), (8, 0.5)]), st.integers(0, 99))
def test_it_is_that_of_faiss(numbers, seed):
    dim, power = numbers
    learned, others = vectors(200, seed=seed), vectors(20, seed=seed + 1)
    reference = faiss.PCAMatrix(8, dim or 8, -power / 2)
    reference.train(learned)
    found, expected = fit_whitening(learned, dim, power).apply(others), unit(reference.apply(others))
    signs = np.sign((found * expected).sum(axis=0))  # of a principal component nobody has chosen
    np.testing.assert_allclose(found, expected * signs, atol=2e-3)


def test_whitened_vectors_have_unit_covariance_before_they_are_scaled():
    learned = vectors(500)
    fitted = fit_whitening(learned)
    spread = learned.astype(np.float64) @ fitted.projection.T + fitted.bias
    np.testing.assert_allclose(spread.T @ spread / 500, np.eye(8), atol=1e-6)


def test_a_rotation_alone_keeps_the_distances():
    learned = vectors(50)
    fitted = fit_whitening(learned, power=0.0)
    moved = learned.astype(np.float64) @ fitted.projection.T
    np.testing.assert_allclose(moved @ moved.T, learned @ learned.T, atol=1e-6)


def test_directions_in_which_nothing_varies_are_left_out():
    few = vectors(4)
    assert len(fit_whitening(few).bias) == 3
    with pytest.raises(ValueError, match="3 dimensions"):
        fit_whitening(few, dim=5)
    with pytest.raises(ValueError, match="at least 2"):
        fit_whitening(few[:1])


def test_the_step_reads_a_file_beside_its_list_or_fits_to_the_gallery(tmp_path):
    gallery, queries = vectors(60), vectors(5, seed=3)
    fit_whitening(gallery).save(tmp_path / "w.npy")
    state = State((Vectors(queries, gallery, queries[:2], np.zeros((3, 1, 8), np.float32)),), np.zeros(60, np.int64))
    by = []
    for numbers in ({"file": "w.npy", "dim": 4}, {"dim": 4}):
        (tmp_path / "p.yaml").write_text(yaml.safe_dump([{"whiten": numbers}, {"search": {"k": 3}}, {"vote": {}}]))
        by.append(read_pipeline(tmp_path / "p.yaml").steps[0](state).models[0])
    for one, other in zip(*(([model.queries, model.gallery, model.non_landmarks]) for model in by)):
        np.testing.assert_array_equal(one, other)
        assert one.shape[1] == 4
    assert by[0].centers is None
    assert Search(3)(State((by[0],), state.gallery_labels)).neighbors[0].rows.shape == (5, 3)


def test_the_file_fits_the_embeddings_or_is_refused(tmp_path):
    fit_whitening(vectors(30, 6)).save(tmp_path / "w.npy")
    with pytest.raises(ValueError, match="6 dimensions, but these embeddings have 8"):
        Whitening.load(tmp_path / "w.npy").apply(vectors(3))
    with pytest.raises(UserError, match="cannot be read"):
        Whitening.load(tmp_path / "none.npy")


def test_the_command_learns_from_a_store(tmp_path, call, refused):
    learned = vectors(40)
    Embeddings(learned, [str(i) for i in range(40)], np.zeros(40, np.int64), [""] * 40,
               Provenance("m", "d", "train")).save(tmp_path / "store")
    words = ["-m", "retrieval", "whiten", "--store", tmp_path / "store", "--out", tmp_path / "w.npy"]
    done = call(*words, "--dim", "5")
    assert done.returncode == 0, done.stderr
    assert "5 of 8 dimensions" in done.stdout and "40 embeddings" in done.stdout
    np.testing.assert_allclose(Whitening.load(tmp_path / "w.npy").apply(learned),
                               fit_whitening(learned, 5).apply(learned), atol=1e-6)
    refused(call(*words, "--dim", "9"), "dim is 9")
