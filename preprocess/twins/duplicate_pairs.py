"""Which photos of a table are duplicates of each other, from their hashes."""
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from preprocess.twins.near_pairs import MAX_PAIRS, Pairs, TooManyPairs, near_pairs

CROWD = 1000  # m photos of one hash and n of another: beyond m × n pairs, each photo is listed once
PAIR_DTYPE = np.dtype([("near", "?"), ("distance", "u1"), ("a", "<i4"), ("b", "<i4")])
"""near: else exact, the files are equal; distance: bits that the looks differ in; a, b: rows of the table."""

Rows = NDArray[np.int64]


class Found(NamedTuple):
    """The duplicates between two splits, or within one."""

    pairs: np.ndarray
    """PAIR_DTYPE (P,), exact ones first, then by distance and rows."""
    crowds: int
    """Pairs of looks (a look with itself included) that so many photos have that not each pair is listed."""


Duplicates = dict[tuple[str, str], Found]
"""By the names of two splits, sorted, or twice the same one."""


class Groups(NamedTuple):
    """Rows of the table by the value that they share."""

    rows: Rows
    """Those of value number v from starts[v], ascending."""
    values: np.ndarray
    """Each once, ascending."""
    starts: Rows
    sizes: Rows


def find_duplicates(records: np.ndarray, splits: dict[str, Rows], distance: int, within: bool) -> Duplicates:
    """The duplicates between each two splits.

    records: RECORD_DTYPE of the whole table. splits: name -> rows to compare. distance: bits (0-63) that the looks
    of near duplicates differ in at most. within: also the rows of each split with each other, a before b. Each
    photo that has a duplicate is in a pair; each pair is listed, but in a crowd, where each photo of one hash is
    paired with the first of the other only (black photos would make millions). Raises TooManyPairs.
    """
    names = sorted(splits)
    both = list(combinations(names, 2)) + [(name, name) for name in names if within]
    return {(a, b): _between(records, splits[a], splits[b], distance, a == b) for a, b in sorted(both)}


def _between(records: np.ndarray, rows_a: Rows, rows_b: Rows, distance: int, same: bool) -> Found:
    contents, looks = records["content"], records["look"]
    a, b = _groups(contents, rows_a), _groups(contents, rows_b)
    exact = _expand(a, b, _equal(a.values, b.values), near=False)
    a, b = _groups(looks, rows_a), _groups(looks, rows_b)
    alike = near_pairs(a.values, b.values, distance)
    near = _expand(a, b, alike, near=True)
    pairs = np.concatenate([exact, near[contents[near["a"]] != contents[near["b"]]]])
    crowded = _crowded(a, b, alike)
    if same:  # each was found both ways round
        pairs, crowded = pairs[pairs["a"] < pairs["b"]], crowded & (alike.a <= alike.b)
    return Found(pairs[np.lexsort((pairs["b"], pairs["a"], pairs["distance"], pairs["near"]))], int(crowded.sum()))


def _groups(values: np.ndarray, rows: Rows) -> Groups:
    rows = rows[np.lexsort((rows, values[rows]))]
    return Groups(rows, *np.unique(values[rows], return_index=True, return_counts=True))


def _equal(a: np.ndarray, b: np.ndarray) -> Pairs:
    _, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    return Pairs(in_a, in_b, np.zeros(len(in_a), np.uint8))


def _crowded(a: Groups, b: Groups, groups: Pairs) -> NDArray[np.bool_]:
    return a.sizes[groups.a] * b.sizes[groups.b] > CROWD


def _expand(a: Groups, b: Groups, groups: Pairs, near: bool) -> np.ndarray:
    """The pairs of rows, PAIR_DTYPE, that pairs of groups stand for."""
    of, in_a, in_b = _members(a.sizes[groups.a], b.sizes[groups.b], _crowded(a, b, groups))
    pairs = np.empty(len(of), PAIR_DTYPE)
    pairs["near"], pairs["distance"] = near, groups.distance[of]
    pairs["a"], pairs["b"] = a.rows[a.starts[groups.a[of]] + in_a], b.rows[b.starts[groups.b[of]] + in_b]
    return pairs


def _members(sizes_a: Rows, sizes_b: Rows, crowded: NDArray[np.bool_]) -> tuple[Rows, Rows, Rows]:
    """Pairs of members of pairs of groups: which pair of groups it is, the number in a, the number in b."""
    counts = np.where(crowded, sizes_a + sizes_b - 1, sizes_a * sizes_b)
    if counts.sum() > MAX_PAIRS:
        raise TooManyPairs
    of = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, … in each pair of groups
    every_a, every_b = np.divmod(number, sizes_b[of])
    first_a, first_b = np.where(number < sizes_a[of], number, 0), np.maximum(number - sizes_a[of] + 1, 0)
    return of, np.where(crowded[of], first_a, every_a), np.where(crowded[of], first_b, every_b)
