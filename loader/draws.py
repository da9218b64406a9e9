"""Counter-based randomness: a pure function of integers, so that any rank can draw any sample's numbers.

The first word is always a seed. Each use has a channel of its own, so that a new one never shifts the numbers of the
old. A channel's number never changes, or a run that continues would draw other images. Without a channel are the order
of an epoch, `hash64(seed, epoch)`, and the keys that train.py makes of a position.
"""
from enum import IntEnum, unique

import numpy as np
from numpy.typing import ArrayLike, NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd; SplitMix64's increment


@unique
class ImageChannel(IntEnum):
    """What is drawn for the image at a position of the stream: `uniform(seed, position, channel + k)`, k = 0, 1, …"""

    CROP = 0  # 40 numbers: area, aspect, x, y of ten tries
    FLIP = 100
    PLACE = 110  # 3: x and y of a framing other than crop, and its coin
    JITTER = 200  # 3: brightness, contrast, saturation
    REPLACE = 300  # one for each corrupt sample met in a row; more than 100 of them would reach CLASS, 200 WARP
    WARP = 500  # 5: whether, angle, scale, shift in x and y
    CUTOUT = 600  # 3: whether, center
    JPEG = 700  # 2: quality, whether
    RANDAUGMENT = 800  # 3 for each operation: which, strength, sign


@unique
class SeedChannel(IntEnum):
    """What has a seed of its own: `hash64(seed, channel, number)`.

    STAGE, DATASET, SHARDS and WINDOW repeat numbers of image channels, for historical reasons. That is harmless: here
    the channel is the second word and there the third, and what is made here is never used as a random number, but as
    the seed with which further words are hashed.
    """

    CLASS = 400  # the stream of a class: number = its place among the classes that may be drawn
    STAGE = 500  # a stage of a run: number = 1 for the second
    DATASET = 600  # the stream of a dataset of a mixture
    SHARDS = 800  # the order of shards; it has no number
    WINDOW = 801  # the order of a window's samples: numbers = epoch, window


def mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer, a bijection of 64-bit words.

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
