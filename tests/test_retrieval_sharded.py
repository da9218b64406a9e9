"""Search in parts of a gallery against search in the whole, bit for bit."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from retrieval import nearest
from retrieval.search import merge_lists, nearest_in_part, part_of


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 70))
def test_parts_follow_each_other_and_begin_where_chunks_do(rows, size, chunk):
    parts = [part_of(rows, rank, size, chunk) for rank in range(size)]
    assert [row for part in parts for row in part] == [*range(rows)]
    assert all(part.start % chunk == 0 for part in parts if part)
    assert max(map(len, parts)) - min(map(len, parts)) < 2 * chunk


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32))
def test_merged_lists_are_those_of_the_whole_with_ties(rows, size, k, seed):
    """Small integers: products are exact and mostly tied; parts may be empty or shorter than k."""
    rng = np.random.default_rng(seed)
    queries, gallery = (rng.integers(-1, 2, (n, 3)).astype(np.float32) for n in (4, rows))
    k = min(k, rows)
    lists = [nearest_in_part(queries, gallery, k, part_of(rows, rank, size, 7)) for rank in range(size)]
    for merged, expected in zip(merge_lists(lists), nearest(queries, gallery, k)):
        assert_array_equal(merged, expected)


@pytest.mark.parametrize("size", [2, 3])
def test_real_numbers_round_as_in_one_process(size):
    rng = np.random.default_rng(0)
    queries, gallery = (rng.normal(size=(n, 32)).astype(np.float16) for n in (50, 20_000))
    lists = [nearest_in_part(queries, gallery, 10, part_of(20_000, rank, size)) for rank in range(size)]
    for merged, expected in zip(merge_lists(lists), nearest(queries, gallery, 10)):
        assert_array_equal(merged, expected)
