"""nearest() against a full sort in float64, with ties and with any chunks."""
import subprocess
import sys

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from arcshard.console import progress
from retrieval import nearest, search
from retrieval.search import approximate, equal_parts, first_by_faiss, first_by_torch


def full_sort(queries, gallery, k):
    """(score descending, index ascending) by Python's sort of float64 products."""
    scores = queries.astype(np.float64) @ gallery.astype(np.float64).T
    order = np.array([sorted(range(len(gallery)), key=lambda i: (-row[i], i))[:k] for row in scores])
    order = order.astype(np.int64).reshape(len(queries), k)
    return np.take_along_axis(scores, order, 1), order


@st.composite
def integer_problem(draw):
    """Small integers: every product is exact in float32, and most scores are tied."""
    dim, rows = draw(st.integers(1, 4)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.integers(0, 3))
    queries = rng.integers(-spread, spread + 1, (draw(st.integers(0, 9)), dim)).astype(np.float32)
    gallery = rng.integers(-spread, spread + 1, (rows, dim)).astype(np.float32)
    return queries, gallery, draw(st.integers(1, rows))


@given(integer_problem(), st.integers(1, 10), st.integers(1, 70))
def test_equals_a_full_sort_with_ties_and_any_chunks(problem, query_chunk, gallery_chunk):
    queries, gallery, k = problem
    scores, indices = nearest(queries, gallery, k, query_chunk=query_chunk, gallery_chunk=gallery_chunk)
    expected_scores, expected_indices = full_sort(queries, gallery, k)
    assert (scores.dtype, indices.dtype) == (np.float32, np.int64)
    assert_array_equal(scores, expected_scores)
    assert_array_equal(indices, expected_indices)


@given(integer_problem())
def test_torch_and_faiss_settle_ties_alike(problem):
    """What a GPU runs, here on the CPU."""
    queries, gallery, k = problem
    expected = full_sort(queries, gallery, k)
    for found in (first_by_torch(queries, gallery, k, "cpu"),
                  first_by_faiss(queries, gallery, k, np.full(len(queries), -np.inf, np.float32))):
        for side, right in zip(found, expected):
            assert_array_equal(side, right)


def test_products_do_not_depend_on_how_many_neighbors_are_asked_for(unit_vectors):
    """Else settling a tie by asking for more would mix scores of two roundings."""
    queries, gallery = unit_vectors(300, 0), unit_vectors(2000, 1)
    every, _ = faiss.knn(queries, gallery, len(gallery), faiss.METRIC_INNER_PRODUCT)
    for k in (1, 2, 99, 100, 700):  # FAISS collects them in three ways
        scores, _ = faiss.knn(queries, gallery, k, faiss.METRIC_INNER_PRODUCT)
        assert_array_equal(scores, every[:, :k])


@pytest.mark.parametrize("gallery_chunk", [1, 7, 64, 999, 1000, 5000])
def test_copies_of_one_photo_come_by_index(gallery_chunk):
    """1,000 rows, each one of 3 photos: the k-th place always falls among hundreds of equal scores."""
    photos = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    which = np.random.default_rng(1).integers(0, 3, 1000)
    _, indices = nearest(photos[:2], photos[which], 50, query_chunk=1, gallery_chunk=gallery_chunk)
    assert_array_equal(indices, [np.flatnonzero(which == 0)[:50], np.flatnonzero(which == 1)[:50]])


def test_unit_vectors_find_the_same_as_float64(unit_vectors):
    queries, gallery = unit_vectors(40, 0), unit_vectors(3000, 1)
    scores, indices = nearest(queries, gallery, 10, query_chunk=16, gallery_chunk=700)
    expected_scores, expected_indices = full_sort(queries, gallery, 10)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()
    swapped = indices != expected_indices  # allowed only between scores that float32 cannot tell apart
    np.testing.assert_allclose(scores[swapped], expected_scores[swapped], atol=1e-6)
    assert swapped.mean() < 0.01


@pytest.fixture
def unit_vectors():
    def draw(rows, seed):
        vectors = np.random.default_rng(seed).normal(size=(rows, 64)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return draw


def test_reads_a_read_only_memory_map(tmp_path, unit_vectors):
    np.save(tmp_path / "gallery.npy", unit_vectors(100, 0))
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    _, indices = nearest(mapped, mapped, 1, gallery_chunk=33)
    assert_array_equal(indices[:, 0], np.arange(100))


def test_a_gallery_of_half_precision_is_searched_as_the_numbers_it_holds(unit_vectors):
    queries, gallery = unit_vectors(5, 0), unit_vectors(300, 1).astype(np.float16)
    halved, whole = (nearest(queries, rows, 7, gallery_chunk=64) for rows in (gallery, gallery.astype(np.float32)))
    assert_array_equal(halved, whole)


BIG = """
import resource, numpy as np
from retrieval import nearest
from retrieval.search import approximate
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
nearest(np.zeros((8, 16), np.float32), np.zeros((99, 16), np.float32), 1)  # libraries' own memory
queries, gallery = (np.random.default_rng(0).random((n, 16), np.float32) for n in (4000, 40_000))
before = peak()
nearest(queries, gallery, 10, query_chunk=256, gallery_chunk=4096)
print(peak() - before)
"""


def test_memory_stays_near_the_chunks():
    """All products are 640 MB, a chunk's 4 MB."""
    out = subprocess.run([sys.executable, "-c", BIG], capture_output=True, text=True, check=True).stdout
    assert int(out) < 64e6


def test_a_long_search_shows_how_far_it_is(unit_vectors, monkeypatch, capsys):
    """Here at once, else after two seconds; a short one shows nothing."""
    queries, gallery = unit_vectors(10, 0), unit_vectors(30, 1)
    nearest(queries, gallery, 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(search, "progress", lambda **words: progress(**words | {"delay": 0}))
    nearest(queries, gallery, 3, query_chunk=3, gallery_chunk=7)
    assert "300/300" in capsys.readouterr().err


@given(st.integers(0, 300), st.integers(1, 60))
def test_queries_come_in_equal_parts_of_which_none_is_small(rows, least):
    parts = [range(rows)[part] for part in equal_parts(rows, least)]
    assert [row for part in parts for row in part] == list(range(rows))
    sizes = {len(part) for part in parts}
    assert not rows or max(sizes) - min(sizes) <= 1 and min(sizes) >= min(rows, least) and max(sizes) < 2 * least + 1


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(("queries", "gallery", "k", "sentence"), [
    (zeros(2, 3), zeros(5, 3), 6, "k is 6: give 1 to 5"),
    (zeros(2, 3), zeros(5, 3), 0, "k is 0: give 1 to 5"),
    (zeros(2, 3), zeros(0, 3), 1, "k is 1: give 1 to 0"),
    (zeros(2, 3), zeros(5, 4), 1, "queries have 3 dimensions and the gallery 4"),
    (zeros(2, 3) * np.nan, zeros(5, 3), 1, "queries hold NaN or infinity"),
    (zeros(2, 3) + 1e30, zeros(5, 3) + 1e30, 1, "products of queries and gallery exceed float32"),
    (zeros(2, 3) + 1e30, zeros(5, 3) - 1e30, 1, "products of queries and gallery exceed float32"),
    (zeros(2, 3), zeros(5, 3) + np.inf, 1, "gallery holds NaN or infinity"),
    (np.zeros((2, 3)), zeros(5, 3), 1, r"queries is float64 of shape \(2, 3\): give a float32 or float16 matrix"),
    (zeros(2, 3), zeros(3), 1, r"gallery is float32 of shape \(3,\): give a float32 or float16 matrix"),
])
def test_errors_say_the_rule(queries, gallery, k, sentence):
    with pytest.raises(ValueError, match=sentence):
        nearest(queries, gallery, k)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_an_index_that_looks_everywhere_finds_what_exact_search_does(unit_vectors, method):
    queries, gallery = unit_vectors(20, 0), unit_vectors(900, 1)
    gallery[450:] = gallery[:450]  # every score occurs twice
    scores, rows = approximate(queries, gallery, 10, method, 900)
    expected_scores, expected_rows = nearest(queries, gallery, 10)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    assert (rows == expected_rows).mean() > 0.95
    tied = scores[:, 1:] == scores[:, :-1]
    assert tied.any() and (np.diff(rows, axis=1)[tied] > 0).all()


def test_an_index_that_finds_too_few_says_so_by_score(unit_vectors):
    scores, rows = approximate(unit_vectors(5, 0), unit_vectors(900, 1), 100, "ivf", 1)
    assert np.isneginf(scores[:, -1]).all() and (rows[np.isneginf(scores)] == 0).all()
