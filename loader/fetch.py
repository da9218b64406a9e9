"""Bytes of the planned samples, checked before the decoder sees them: a DALI pipeline does not survive a bad JPEG."""
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from loader.hashing import hash64
from loader.mixture import Mixture
from loader.selection import Order
from shards import CorruptSample, Dataset

REPLACE = 300  # channel of randomness, beside those in views.py
ATTEMPTS = 1000
PART = 8  # samples that a thread reads at a time
Bytes = NDArray[np.uint8]
Item = TypeVar("Item")
Found = Iterator[tuple[Bytes, int]]
"""Bytes and the row that they really are of, in the order asked for; reading began when it was made."""


def read(dataset: Dataset | Mixture, ids: NDArray[np.int64], pool: Executor) -> Found:
    """Start to read the samples. The iterator raises CorruptSample for the first that rotted."""
    return _in_parts(lambda sample: (dataset.checked_view(sample), sample), pool, ids)


def read_or_replace(dataset: Dataset | Mixture, ids: NDArray[np.int64], stream: Order, positions: NDArray[np.int64],
                    pool: Executor) -> Found:
    """As `read`, but a rotten sample is named on stderr and gives way to one that its position chooses.

    No other position changes, and every rank would choose the same without asking. The iterator raises CorruptSample
    when a thousand choices in a row are rotten.
    """
    def sound(sample: int, position: int) -> tuple[Bytes, int]:
        for attempt in range(ATTEMPTS):
            try:
                return dataset.checked_view(sample), sample
            except CorruptSample as error:
                print(f"{error}; here another sample takes its place", file=sys.stderr)
                sample = another(stream, position, attempt)
        raise CorruptSample(f"{ATTEMPTS} samples in a row do not match their checksums: run python -m shards verify")

    return _in_parts(sound, pool, ids, positions)


def another(stream: Order, position: int, attempt: int) -> int:
    """A row that position and attempt choose, out of those at the position's peers."""
    peers = stream.peers(position)
    word = hash64(stream.seed, position, REPLACE + attempt) % np.uint64(len(peers))
    return int(stream.sample_at(peers.start + word.astype(np.int64))[0])


def _in_parts(job: Callable[..., tuple[Bytes, int]], pool: Executor, *columns: NDArray[np.int64]) -> Found:
    """pool.map of the job over the columns, begun at once; a future a sample would cost as much as its read."""
    rows = list(zip(*(column.tolist() for column in columns)))
    parts = [rows[start:start + PART] for start in range(0, len(rows), PART)]
    return chain.from_iterable(pool.map(lambda part: [job(*row) for row in part], parts))


def collect(found: Found) -> tuple[list[Bytes], NDArray[np.int64]]:
    """Wait for the reads: the samples' bytes, and the rows that they really are of, int64 (n,)."""
    data, ids = zip(*found)
    return list(data), np.array(ids, np.int64)


def one_ahead(items: Iterator[Item], thread: Executor) -> Iterator[Item]:
    """The same items, each made in the thread while the one before is in use. An error comes in its item's place."""
    making = thread.submit(next, items, None)
    while (item := making.result()) is not None:
        making = thread.submit(next, items, None)
        yield item
