"""Find the keys that name several samples, among many millions, at 8 bytes a key."""
import numpy as np

from shards.format import MAX_KEY

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, 2^64 divided by the golden ratio: Knuth, TAOCP 6.4
SHIFT = np.uint64(29)


def hash_keys(keys: np.ndarray) -> np.ndarray:
    """uint64 (n,) of keys S96 (n,): equal keys have equal hashes, others nearly never."""
    words = np.ascontiguousarray(keys).view("<u8").reshape(len(keys), MAX_KEY // 8)
    hashes = np.zeros(len(keys), np.uint64)
    for word in words.T:
        hashes = (hashes ^ word) * MULTIPLIER
        hashes ^= hashes >> SHIFT
    return hashes


def repeated(hashes: list[np.ndarray]) -> np.ndarray:
    """The hashes, uint64 and sorted, that occur more than once in all arrays together."""
    in_order = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
    return np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
