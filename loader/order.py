"""The order of training: a pure function from the position in an endless stream to a sample.

Position p = epoch × num_samples + place. Each epoch is a keyed bijection of its places onto the samples, computed
number by number: no permutation array, the same cost for a million samples and for ten billion.
"""
import numpy as np
from numpy.typing import ArrayLike, NDArray

from loader.draws import hash64, mix64

Words = NDArray[np.uint64]
SMALL = 256  # samples an epoch below which a Feistel network is not uniform
ROUNDS = 8  # of the Feistel network, even; with 4, neighbors at 200 samples are measurably not uniform (z 50)
SWAPS = 24  # with 8, neighbors are measurably not uniform (z 16 to 45), with 12 they are (z < 2)


def sample_at(positions: NDArray[np.int64], num_samples: ArrayLike, seed: ArrayLike) -> NDArray[np.int64]:
    """Samples at the given positions of the endless stream.

    Args:
        positions: int64 (n,), non-negative.
        num_samples: N, samples an epoch; positions [e·N, (e+1)·N) hold each of 0..N-1 once, for every epoch e.
        seed: chooses the stream. It and num_samples may be arrays (n,): each position is then of a stream of its own.

    Returns: int64 (n,) in [0, N).
    """
    positions, sizes = np.asarray(positions, np.int64), np.asarray(num_samples, np.int64)
    if sizes.size and sizes.min() < 1:
        raise ValueError(f"num_samples is {sizes.min()}: give 1 or more")
    if positions.size and positions.min() < 0:
        raise ValueError(f"a position is {positions.min()}: give 0 or more")
    epoch, place = np.divmod(positions, sizes)
    keys = np.broadcast_to(hash64(seed, epoch), place.shape)
    sizes = np.broadcast_to(sizes, place.shape)
    sample = np.empty(len(place), np.uint64)
    small = sizes < SMALL
    for chosen, bijection in ((small, swap_or_not), (~small, feistel_walk)):
        if chosen.any():
            sample[chosen] = bijection(place[chosen].astype(np.uint64), sizes[chosen].astype(np.uint64), keys[chosen])
    return sample.astype(np.int64)


# Keyed bijections of {0, …, N-1}, computed element by element. They take arrays (n,): element x, its N, and a key that
# chooses the bijection.


def swap_or_not(x: Words, size: Words, keys: Words) -> Words:
    """For small N, for which the walk below is long (N = 15: 17 steps, 100 for the last of a batch of 256).

    Each round swaps some of the pairs {y, K - y mod N}. Source: Hoang, Morris, Rogaway, "An enciphering scheme based on
    a card shuffle", CRYPTO 2012.
    """
    for _ in range(SWAPS):
        keys = mix64(keys + np.uint64(1))
        partner = _add_mod(_below(keys, size), size - x, size)
        swaps = mix64(keys ^ np.maximum(x, partner)) & np.uint64(1)
        x = np.where(swaps == 1, partner, x)
    return x


def feistel_walk(x: Words, size: Words, keys: Words) -> Words:
    """Walks the cycles of a Feistel network over Z_a × Z_b, a·b >= N, until they come back below N.

    Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002. For N < 256 it is measurably not
    uniform.
    """
    a, b = _sides(size)
    x = x.copy()
    walking = np.arange(len(x))
    while len(walking):
        x[walking] = _feistel(x[walking], keys[walking], a[walking], b[walking])
        walking = walking[x[walking] >= size[walking]]
    return x


def _sides(size: Words) -> tuple[Words, Words]:
    a = np.ceil(np.sqrt(size.astype(np.float64))).astype(np.uint64)
    return a, (size + a - np.uint64(1)) // a


def _feistel(x: Words, keys: Words, a: Words, b: Words) -> Words:
    """One keyed bijection of [0, a·b) for each element; the halves live in Z_a and Z_b and take turns."""
    left, right = np.divmod(x, b)
    for _ in range(ROUNDS):
        keys = mix64(keys)
        left = _add_mod(left, _below(mix64(keys ^ right), a), a)
        left, right, a, b = right, left, b, a
    return left * b + right


def _below(word: Words, limit: Words) -> Words:
    """The high 32 bits scaled to [0, limit), limit < 2^32 (Lemire 2019, without the rejection: bias < 2^-15)."""
    return ((word >> np.uint64(32)) * limit) >> np.uint64(32)


def _add_mod(x: Words, y: Words, modulus: Words) -> Words:
    total = x + y
    return np.where(total >= modulus, total - modulus, total)
