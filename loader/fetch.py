"""Bytes of the planned samples, checked before the decoder sees them: a DALI pipeline does not survive a bad JPEG."""
import sys
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from loader.hashing import hash64
from shards import CorruptSample, Dataset

REPLACE = 300  # channel of randomness, beside those in views.py
ATTEMPTS = 1000
Bytes = NDArray[np.uint8]


def read(dataset: Dataset, ids: NDArray[np.int64], pool: Executor) -> list[Bytes]:
    """Checked views of the samples' bytes. Raises CorruptSample for the first that rotted."""
    return list(pool.map(dataset.checked_view, ids.tolist()))


def read_or_replace(dataset: Dataset, ids: NDArray[np.int64], seed: int, positions: NDArray[np.int64], pool: Executor
                    ) -> tuple[list[Bytes], NDArray[np.int64]]:
    """As `read`, but a rotten sample is named on stderr and gives way to one that its position chooses.

    Returns the bytes and the ids that were really read. No other position changes, and every rank would choose the
    same without asking. Raises CorruptSample when a thousand choices in a row are rotten.
    """
    def sound(sample: int, position: int) -> tuple[Bytes, int]:
        for attempt in range(ATTEMPTS):
            try:
                return dataset.checked_view(sample), sample
            except CorruptSample as error:
                print(f"{error}; another sample takes its place", file=sys.stderr)
                sample = int(hash64(seed, position, REPLACE + attempt)[0] % np.uint64(len(dataset)))
        raise CorruptSample(f"{ATTEMPTS} samples in a row do not match their checksums: run python -m shards verify")

    found = list(pool.map(sound, ids.tolist(), positions.tolist()))
    return [data for data, _ in found], np.array([sample for _, sample in found], np.int64)
