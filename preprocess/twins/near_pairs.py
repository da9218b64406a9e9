"""All pairs of 64-bit hashes within a Hamming distance: exact, without comparing each with each.

Pigeonhole (Manku, Jain, Das Sarma: Detecting near-duplicates for web crawling, WWW 2007): cut the 64 bits into
d + 1 bands; two hashes that differ in at most d bits agree in all bits of some band. So only hashes that agree
in a band, those of one bucket, are compared.
"""
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arcshard.console import progress

Hashes = NDArray[np.uint64]

BITS = 64
MIN_BANDS = 4  # fewer would be wider than 16 bits, and numpy's call would cost more than it compares
BLOCK = 1 << 18  # comparisons at once: 2 MB of differences
MAX_PAIRS = 20_000_000  # 340 MB


class TooManyPairs(Exception):
    """More than MAX_PAIRS pairs lie within the distance."""


class Pairs(NamedTuple):
    """Rows of two arrays that lie close together, and in how many bits they differ."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    distance: NDArray[np.uint8]


class Buckets(NamedTuple):
    """Hashes sorted by their bits in a band: those of key k are starts[k] to starts[k + 1]."""

    hashes: Hashes
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]


def near_pairs(a: Hashes, b: Hashes, distance: int) -> Pairs:
    """Each pair (row of a, row of b) of hashes that differ in at most `distance` bits (0-63), once, in no order.

    a (A,), b (B,). Needs about 40 bytes a hash beside the pairs. Raises TooManyPairs.
    """
    found, count = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8))], 0
    for pairs in _found(a, b, _masks(distance + 1), distance):
        found.append(pairs)
        count += len(pairs.a)
        if count > MAX_PAIRS:
            raise TooManyPairs
    return Pairs(*map(np.concatenate, zip(*found)))


def _masks(bands: int) -> list[int]:
    """The bands as masks: neighbouring bits, nearly equally many."""
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
    """The close pairs of a bucket, without those that an earlier band has found."""
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
