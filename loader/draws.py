"""Counter-based randomness: a pure function of integers, so that any rank can draw any sample's numbers."""
import numpy as np
from numpy.typing import ArrayLike, NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd; SplitMix64's increment


def mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser, a bijection of 64-bit words.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with Stafford's
    constants "Mix13".
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def hash64(*words: ArrayLike) -> NDArray[np.uint64]:
    """Hash broadcastable non-negative integers, in order, to uint64; for fixed other words it is injective in each."""
    state = np.zeros(1, np.uint64)
    for word in words:
        state = mix64((state + GOLDEN) ^ np.asarray(word).astype(np.uint64))
    return state


def uniform(*words: ArrayLike) -> NDArray[np.float64]:
    """Doubles in [0, 1) with 53 random bits, one for each broadcast tuple of words."""
    return (hash64(*words) >> np.uint64(11)).astype(np.float64) * 2.0**-53
