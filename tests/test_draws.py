"""Counter-based randomness: published values, uniformity, and one channel for each use."""
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loader.augment import TRIES
from loader.draws import GOLDEN, ImageChannel, SeedChannel, hash64, mix64, uniform

MASK = 2**64 - 1


def mix64_of_python(x: int) -> int:
    """SplitMix64's finalizer in Python's unbounded integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def test_published_first_outputs_of_splitmix64():
    """The first outputs of SplitMix64 seeded with 0, as Vigna's reference program prints them."""
    states = np.arange(1, 4, dtype=np.uint64) * GOLDEN
    assert [hex(v) for v in mix64(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


@given(st.lists(st.integers(0, MASK), min_size=1, max_size=20))
def test_mix64_equals_integer_arithmetic(words):
    assert mix64(np.array(words, np.uint64)).tolist() == [mix64_of_python(w) for w in words]


def test_hash_depends_on_each_word_and_on_their_order():
    assert len({int(hash64(*words)[0]) for words in [(1, 2), (2, 1), (1, 3), (2, 2), (1,), (0, 1, 2)]}) == 6


def test_uniform_is_uniform_and_channels_are_independent():
    u = uniform(3, np.arange(100_000)[:, None], np.arange(3))
    assert u.shape == (100_000, 3) and u.min() >= 0 and u.max() < 1
    counts = np.stack([np.bincount((column * 50).astype(int), minlength=50) for column in u.T])
    chi_square = ((counts - 2000) ** 2 / 2000).sum(1)
    assert (chi_square < 49 + 5 * np.sqrt(2 * 49)).all()
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 5 / np.sqrt(100_000)


def test_no_channels_repeat_but_the_historical_ones():
    """Each image channel with as many numbers as it may draw: 8 operations of RandAugment, 100 corrupt samples."""
    image, seed = ImageChannel, SeedChannel
    numbers = {image.CROP: 4 * TRIES, image.FLIP: 1, image.PLACE: 3, image.JITTER: 3, image.REPLACE: 100, image.WARP: 5,
               image.CUTOUT: 3, image.JPEG: 1, image.RANDAUGMENT: 3 * 8}
    owner = {channel + k: channel for channel, count in numbers.items() for k in range(count)}
    assert set(numbers) == set(image) and len(owner) == sum(numbers.values())
    assert {(channel, owner[channel]) for channel in seed if channel in owner} == {
        (seed.STAGE, image.WARP), (seed.DATASET, image.CUTOUT), (seed.SHARDS, image.RANDAUGMENT),
        (seed.WINDOW, image.RANDAUGMENT)}


def test_channels_keep_their_numbers():
    assert {channel.name: int(channel) for channel in [*ImageChannel, *SeedChannel]} == {
        "CROP": 0, "FLIP": 100, "PLACE": 110, "JITTER": 200, "REPLACE": 300, "WARP": 500, "CUTOUT": 600, "JPEG": 700,
        "RANDAUGMENT": 800, "CLASS": 400, "STAGE": 500, "DATASET": 600, "SHARDS": 800, "WINDOW": 801}
