"""The order of training: a pure function from the position in an endless stream to a sample.

Position p = epoch × num_samples + place. Each epoch is a keyed bijection of its places onto the samples, computed
number by number: no permutation array, the same cost for a million samples and for ten billion.
"""
import numpy as np
from numpy.typing import ArrayLike, NDArray

from loader.bijections import feistel_walk, swap_or_not
from loader.hashing import hash64

SMALL = 256  # samples an epoch below which a Feistel network is not uniform


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
        raise ValueError(f"num_samples must be at least 1; got {sizes.min()}")
    if positions.size and positions.min() < 0:
        raise ValueError(f"positions must not be negative; got {positions.min()}")
    epoch, place = np.divmod(positions, sizes)
    keys = np.broadcast_to(hash64(seed, epoch), place.shape)
    sizes = np.broadcast_to(sizes, place.shape)
    sample = np.empty(len(place), np.uint64)
    small = sizes < SMALL
    for chosen, bijection in ((small, swap_or_not), (~small, feistel_walk)):
        if chosen.any():
            sample[chosen] = bijection(place[chosen].astype(np.uint64), sizes[chosen].astype(np.uint64), keys[chosen])
    return sample.astype(np.int64)
