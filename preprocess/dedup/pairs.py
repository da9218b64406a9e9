"""Find the duplicates among a table's photos by their hashes."""
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arcshard.console import progress

# All pairs of 64-bit hashes within a Hamming distance, exactly, without comparing each with each: the pigeonhole
# principle (Manku, Jain, Das Sarma: Detecting near-duplicates for web crawling, WWW 2007). Cut the 64 bits into d + 1
# bands; two hashes that differ in at most d bits agree in all bits of some band. So only hashes that agree in a band,
# those of one bucket, are compared. faiss.IndexBinaryMultiHash finds the same pairs, but takes 1.8 times as long
# for 100,000 hashes and d = 4, 15 times for 3,000 and d = 12.

Hashes = NDArray[np.uint64]

BITS = 64
MIN_BANDS = 4  # so that a band's keys fit into 16 bits
BLOCK = 1 << 18  # comparisons at a time: 2 MB of differences
MAX_PAIRS = 20_000_000  # 340 MB


class TooManyPairs(Exception):
    """More than MAX_PAIRS pairs lie within the distance."""


class Pairs(NamedTuple):
    """Rows of two arrays whose hashes are close, and the number of bits that differ."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    distance: NDArray[np.uint8]


class Buckets(NamedTuple):
    """Hashes sorted by their bits in a band: those with key k are at starts[k] to starts[k + 1]."""

    hashes: Hashes
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]


def near_pairs(a: Hashes, b: Hashes, distance: int) -> Pairs:
    """Each pair (row of a, row of b) of hashes that differ in at most `distance` bits (0-63), once, in any order.

    a (A,), b (B,). Needs about 40 bytes per hash besides the pairs. Raises TooManyPairs.
    """
    found, count = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))], 0
    for pairs in _found(a, b, _masks(distance + 1), distance):
        found.append(pairs)
        count += len(pairs.a)
        if count > MAX_PAIRS:
            raise TooManyPairs
    return Pairs(*map(np.concatenate, zip(*found)))


def _masks(bands: int) -> list[int]:
    """The bands as masks: contiguous bits, nearly equally many."""
    edges = [BITS * band // max(bands, MIN_BANDS) for band in range(max(bands, MIN_BANDS) + 1)]
    return [(1 << high) - (1 << low) for low, high in zip(edges, edges[1:])]


def _found(a: Hashes, b: Hashes, masks: list[int], distance: int) -> Iterator[Pairs]:
    for number, mask in enumerate(progress(masks, unit="band", what="compare")):
        in_a, in_b = _buckets(a, mask), _buckets(b, mask)
        for key in np.flatnonzero(np.diff(in_a.starts) * np.diff(in_b.starts)).tolist():
            yield from _compare(in_a, in_b, key, distance, masks[:number])


def _buckets(hashes: Hashes, mask: int) -> Buckets:
    shift = (mask & -mask).bit_length() - 1
    keys = ((hashes & np.uint64(mask)) >> np.uint64(shift)).astype(np.uint16)
    rows = np.argsort(keys, kind="stable")
    return Buckets(hashes[rows], rows, np.searchsorted(keys[rows], np.arange((mask >> shift) + 2)))


def _compare(in_a: Buckets, in_b: Buckets, key: int, distance: int, earlier: list[int]) -> Iterator[Pairs]:
    """The close pairs of a bucket, except those that an earlier band has found."""
    (start, end), (start_b, end_b) = in_a.starts[key:key + 2], in_b.starts[key:key + 2]
    step = max(1, BLOCK // (end_b - start_b))
    for first in range(start, end, step):
        differences = in_a.hashes[first:min(first + step, end), None] ^ in_b.hashes[start_b:end_b]
        distances = np.bitwise_count(differences)
        i, j = np.nonzero(distances <= distance)
        new = np.ones(len(i), bool)
        for mask in earlier:
            new &= differences[i, j] & np.uint64(mask) != 0
        i, j = i[new], j[new]
        yield Pairs(in_a.rows[first + i], in_b.rows[start_b + j], distances[i, j])


CROWD = 1000  # m photos of one hash and n of another: if m × n is larger, each photo is listed once
PAIR_DTYPE = np.dtype([("near", "?"), ("distance", "u1"), ("a", "<i4"), ("b", "<i4")])
"""near: False for exact, equal files; distance: number of bits in which the looks differ; a, b: rows of the table."""

Rows = NDArray[np.int64]


class SplitPairs(NamedTuple):
    """The duplicates between two splits, or within one."""

    pairs: np.ndarray
    """PAIR_DTYPE (P,): exact ones first, then by distance and rows."""
    crowds: int
    """Number of pairs of looks with more than CROWD pairs of photos, of which not all are listed."""


Duplicates = dict[tuple[str, str], SplitPairs]
"""By the sorted names of two splits, or twice the same name."""


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

    records: RECORD_DTYPE of the whole table. splits: name -> rows to compare. distance: bits (0-63) in which the looks
    of near duplicates differ at most. within: also compare the rows of each split with each other, a before b. Each
    photo that has a duplicate is in a pair. All pairs are listed, except in a crowd, where each photo of one hash is
    paired with the first of the other only (black photos would make millions). Raises TooManyPairs.
    """
    names = sorted(splits)
    both = list(combinations(names, 2)) + [(name, name) for name in names if within]
    return {(a, b): _between(records, splits[a], splits[b], distance, a == b) for a, b in sorted(both)}


def _between(records: np.ndarray, rows_a: Rows, rows_b: Rows, distance: int, same: bool) -> SplitPairs:
    contents, looks = records["content"], records["look"]
    a, b = _groups(contents, rows_a), _groups(contents, rows_b)
    exact = _expand(a, b, _equal(a.values, b.values), near=False)
    a, b = _groups(looks, rows_a), _groups(looks, rows_b)
    alike = near_pairs(a.values, b.values, distance)
    near = _expand(a, b, alike, near=True)
    pairs = np.concatenate([exact, near[contents[near["a"]] != contents[near["b"]]]])
    crowded = _crowded(a, b, alike)
    if same:  # each pair was found in both orders
        pairs, crowded = pairs[pairs["a"] < pairs["b"]], crowded & (alike.a <= alike.b)
    return SplitPairs(pairs[np.lexsort((pairs["b"], pairs["a"], pairs["distance"], pairs["near"]))], int(crowded.sum()))


def _groups(values: np.ndarray, rows: Rows) -> Groups:
    rows = rows[np.lexsort((rows, values[rows]))]
    return Groups(rows, *np.unique(values[rows], return_index=True, return_counts=True))


def _equal(a: np.ndarray, b: np.ndarray) -> Pairs:
    _, in_a, in_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    return Pairs(in_a, in_b, np.zeros(len(in_a), np.uint8))


def _crowded(a: Groups, b: Groups, groups: Pairs) -> NDArray[np.bool_]:
    return a.sizes[groups.a] * b.sizes[groups.b] > CROWD


def _expand(a: Groups, b: Groups, groups: Pairs, near: bool) -> np.ndarray:
    """The pairs of rows, PAIR_DTYPE, behind pairs of groups."""
    of, in_a, in_b = _members(a.sizes[groups.a], b.sizes[groups.b], _crowded(a, b, groups))
    pairs = np.empty(len(of), PAIR_DTYPE)
    pairs["near"], pairs["distance"] = near, groups.distance[of]
    pairs["a"], pairs["b"] = a.rows[a.starts[groups.a[of]] + in_a], b.rows[b.starts[groups.b[of]] + in_b]
    return pairs


def _members(sizes_a: Rows, sizes_b: Rows, crowded: NDArray[np.bool_]) -> tuple[Rows, Rows, Rows]:
    """For each pair of rows to list: the number of its pair of groups, its position in group a, in group b."""
    counts = np.where(crowded, sizes_a + sizes_b - 1, sizes_a * sizes_b)
    if counts.sum() > MAX_PAIRS:
        raise TooManyPairs
    of = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, … in each pair of groups
    every_a, every_b = np.divmod(number, sizes_b[of])
    first_a, first_b = np.where(number < sizes_a[of], number, 0), np.maximum(number - sizes_a[of] + 1, 0)
    return of, np.where(crowded[of], first_a, every_a), np.where(crowded[of], first_b, every_b)
