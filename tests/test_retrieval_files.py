"""What retrieval writes: embeddings that read back equal, and a submission that Kaggle could read."""
import csv
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcshard.console import UserError
from retrieval import Embeddings, write_submission


def embeddings(**changes):
    fields = {"vectors": np.eye(3, 4, dtype=np.float32), "keys": ["a1", "b2", "c_3"],
              "labels": np.array([1, 0, -1]), "landmark_ids": ["203", "Žižkov", ""],
              "model": "0f", "dataset": "ab", "split": "test"}
    return Embeddings(**fields | changes)


@pytest.mark.parametrize("saved", [
    embeddings(),
    embeddings(vectors=np.zeros((0, 4), np.float32), keys=[], labels=np.zeros(0, np.int64), landmark_ids=[])])
def test_load_gives_back_what_was_saved(tmp_path, saved):
    saved.save(tmp_path / "e.npz")
    loaded = Embeddings.load(tmp_path / "e.npz")
    for name in ("vectors", "labels"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    for name in ("keys", "landmark_ids", "model", "dataset", "split"):
        assert getattr(loaded, name) == getattr(saved, name)


def test_same_embeddings_same_bytes(tmp_path):
    """No time of writing in the archive, so two writes at any distance agree."""
    embeddings().save(tmp_path / "a.npz")
    embeddings().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {member.date_time[0] for member in archive.infolist()} == {1980}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def damaged(path, how):
    embeddings().save(path)
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[:-30])
    elif how == "one byte flipped":
        at = whole.index(np.eye(3, 4, dtype=np.float32).tobytes())
        path.write_bytes(whole[:at] + b"\x07" + whole[at + 1:])
    elif how == "other arrays":
        np.savez(path, vectors=np.zeros(3))
    elif how == "one array":
        with open(path, "wb") as f:
            np.save(f, np.zeros(3))
    elif how == "other format":
        with np.load(path) as archive:
            np.savez(path, **dict(archive) | {"format": np.array("arcshard-embeddings-99")})
    elif how == "pickle":
        np.savez(path, vectors=np.array([{}], object))
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["cut", "one byte flipped", "other arrays", "one array", "other format",
                                 "pickle", "empty"])
def test_load_refuses_anything_else(tmp_path, how):
    path = tmp_path / "e.npz"
    damaged(path, how)
    with pytest.raises(UserError, match=r"arcshard-embeddings-1, got .*e.npz, which is not one: delete"):
        Embeddings.load(path)


def test_load_of_no_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"got .*none.npz, which is none: run evaluate.py first"):
        Embeddings.load(tmp_path / "none.npz")


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"keys": ["a1"]}, r"one row a sample, got \[3, 1, 3, 3\]"),
    ({"keys": ["a1", "b2", "a1"]}, "one row a photo, got 2 of a1"),
    ({"vectors": np.eye(3)}, r"float32 matrix, got float64 of shape \(3, 3\)"),
    ({"vectors": np.array([[0], [np.nan], [np.inf]], np.float32)}, "infinity in 2 of 3 rows, first b2")])
def test_embeddings_that_do_not_fit_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        embeddings(**changes)


def test_a_file_with_nan_is_refused_by_name(tmp_path, monkeypatch):
    with monkeypatch.context() as unchecked:
        unchecked.setattr(Embeddings, "__post_init__", lambda self: None)
        embeddings(vectors=np.full((3, 4), np.nan, np.float32)).save(tmp_path / "e.npz")
    with pytest.raises(UserError, match=r"e.npz: embeddings must be finite, got NaN .* 3 of 3 rows, first a1: delete"):
        Embeddings.load(tmp_path / "e.npz")


def read_submission(path):
    with open(path, newline="") as f:
        return [(row["id"], row["landmarks"]) for row in csv.DictReader(f)]


def test_submission_reads_back(tmp_path):
    write_submission(tmp_path / "s.csv", ["x", "y", "z"], ["203", "", "7"], np.array([0.5, 0.9, 1.0]))
    assert (tmp_path / "s.csv").read_text() == "id,landmarks\nx,203 0.5\ny,\nz,7 1.0\n"
    assert read_submission(tmp_path / "s.csv") == [("x", "203 0.5"), ("y", ""), ("z", "7 1.0")]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
       st.sampled_from([np.float64, np.float32]))
def test_scores_survive_writing(tmp_path_factory, scores, dtype):
    """Each reads back equal and without exponent, subnormal numbers and 1e308 included."""
    limit = np.finfo(dtype).max
    scores = np.clip(scores, -limit, limit).astype(dtype)
    path = tmp_path_factory.mktemp("scores") / "s.csv"
    write_submission(path, [str(i) for i in range(len(scores))], ["5"] * len(scores), scores)
    written = [landmarks.split(" ") for _, landmarks in read_submission(path)]
    assert all(name == "5" and re.fullmatch(r"-?\d+\.\d+", score) for name, score in written)
    assert np.array_equal(np.array([score for _, score in written]).astype(dtype), scores)


def test_an_id_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="row an image, got 2 images of id x: rename or remove all but one"):
        write_submission(tmp_path / "s.csv", ["x", "y", "x"], ["1", "2", "3"], [1.0, 1.0, 1.0])
    assert list(tmp_path.iterdir()) == []


def test_a_landmark_id_with_a_space_is_refused(tmp_path):
    with pytest.raises(UserError, match="landmark id and score by a space, got the landmark id 'Big Ben'"):
        write_submission(tmp_path / "s.csv", ["x"], ["Big Ben"], [1.0])


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_without_rank_is_refused(tmp_path, score):
    with pytest.raises(ValueError, match="ranks its answer and must be finite, got (nan|inf) for 203"):
        write_submission(tmp_path / "s.csv", ["x"], ["203"], [score])
    write_submission(tmp_path / "s.csv", ["x"], [""], [score])
    assert read_submission(tmp_path / "s.csv") == [("x", "")]


def test_no_queries_make_a_header(tmp_path):
    write_submission(tmp_path / "s.csv", [], [], [])
    assert (tmp_path / "s.csv").read_text() == "id,landmarks\n"
