"""Bytes of the planned samples: read and checked by threads, from shards that are fetched before they are needed."""
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from threading import Event
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError, size_text
from loader.draws import ImageChannel, hash64
from loader.mixture import Mixture
from loader.pipeline import PREFETCH
from loader.streams import EVALUATION_WINDOW, EvaluationSchedule, IntArray, Order, ShardSchedule, WindowStream
from shards import CorruptSample, Dataset
from shards.manifest import shard_sizes, table_size

ATTEMPTS = 1000  # to replace a corrupt sample
PART = 8  # samples that a thread reads at a time: a future for each would cost as much as its read
FETCHERS = 4  # threads, each with a shard
IN_FLIGHT = PREFETCH + 4  # global batches whose bytes may be in use: DALI's, two being planned, two of other ranks

Item = TypeVar("Item")
Bytes = NDArray[np.uint8]
PendingReads = Iterator[tuple[Bytes, int]]
"""The bytes and the row of each sample, in the order asked for; reading began when the iterator was made."""
WaitForShards = Callable[[IntArray, IntArray], None]
"""Called with rising positions of the stream and the rows there, both (n,): returns once their shards are here."""


# Samples. Their checksums are checked here, since a DALI pipeline does not survive a broken JPEG.


def read(dataset: Dataset | Mixture, ids: IntArray, pool: Executor) -> PendingReads:
    """Start to read samples `ids` (n,). The iterator raises CorruptSample at the first that is corrupt."""
    return _in_parts(lambda sample: (dataset.checked_view(sample), sample), pool, ids)


def read_or_replace(dataset: Dataset | Mixture, ids: IntArray, stream: Order, positions: IntArray, pool: Executor
                    ) -> PendingReads:
    """As `read`, but a corrupt sample is named on stderr and replaced by one that its position chooses.

    No other position changes, and every rank would choose the same without asking. The iterator raises CorruptSample
    when a thousand choices in a row are corrupt.
    """
    def sound(sample: int, position: int) -> tuple[Bytes, int]:
        for attempt in range(ATTEMPTS):
            try:
                return dataset.checked_view(sample), sample
            except CorruptSample as error:
                print(f"{error}; here another sample takes its place", file=sys.stderr)
                sample = replacement(stream, position, attempt)
        raise CorruptSample(f"{ATTEMPTS} samples in a row do not match their checksums: run python -m shards verify")

    return _in_parts(sound, pool, ids, positions)


def replacement(stream: Order, position: int, attempt: int) -> int:
    """A row that position and attempt choose among those at the position's peers."""
    peers = stream.peers(position)
    word = hash64(stream.seed, position, ImageChannel.REPLACE + attempt) % np.uint64(len(peers))
    return int(stream.sample_at(peers.start + word.astype(np.int64))[0])


def _in_parts(job: Callable[..., tuple[Bytes, int]], pool: Executor, *columns: IntArray) -> PendingReads:
    """pool.map of the job over the columns, PART rows in a future, submitted at once."""
    rows = list(zip(*(column.tolist() for column in columns)))
    parts = [rows[start:start + PART] for start in range(0, len(rows), PART)]
    return chain.from_iterable(pool.map(lambda part: [job(*row) for row in part], parts))


def collect(pending: PendingReads) -> tuple[list[Bytes], IntArray]:
    """Wait for the reads: the samples' bytes and their rows, int64 (n,)."""
    data, ids = zip(*pending)
    return list(data), np.array(ids, np.int64)


def one_ahead(items: Iterator[Item], thread: Executor) -> Iterator[Item]:
    """The same items, each made in the thread while the one before is in use. An error comes in its item's place."""
    making = thread.submit(next, items, None)
    while (item := making.result()) is not None:
        making = thread.submit(next, items, None)
        yield item


# Shards of a dataset in object storage.


@contextmanager
def shards_ahead(schedule: ShardSchedule | None, turn: float) -> Iterator[WaitForShards]:
    """What to call before reading. schedule: None for a dataset on disk; turn: see ShardsAhead."""
    if schedule is None:
        yield already_here
        return
    ahead = ShardsAhead(schedule, turn)
    try:
        yield ahead.wait_for
    finally:
        ahead.close()


def already_here(positions: IntArray, ids: IntArray) -> None:
    """WaitForShards of a dataset on disk."""


class ShardsAhead:
    """Keeps the shards of the windows in use on local disk, and fetches those of the next one.

    turn: where in each window, as a share in [0, 1), to begin: ranks that share a cache fetch different shards first.
    """

    def __init__(self, schedule: ShardSchedule, turn: float):
        self._schedule, self._dataset, self._turn = schedule, schedule.dataset, turn
        self._kept: dict[int, Future[NDArray[np.uint8]]] = {}
        self._stop = Event()
        self._pool = ThreadPoolExecutor(FETCHERS, "shards")

    def wait_for(self, positions: IntArray, ids: IntArray) -> None:
        """Wait until the shards of rows `ids` (n,) at rising `positions` (n,) are here; let go of those before them.

        Raises UserError if one of them cannot be fetched. A fetch ahead that failed starts again with the next call.
        """
        first, last = self._schedule.windows_of(positions)
        wanted = [shard for window in range(first, max(last, first + 1) + 1) for shard in self._in_turn(window)]
        self._kept = {shard: self._fetch(shard) for shard in wanted}
        for shard in np.unique(self._dataset.index["shard"][ids]).tolist():
            self._kept[shard].result()

    def close(self) -> None:
        """End the threads, which takes as long as their current requests."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        self._kept.clear()

    def _in_turn(self, window: int) -> list[int]:
        shards = self._schedule.shards_of(window)
        start = int(self._turn * len(shards))
        return shards[start:] + shards[:start]

    def _fetch(self, shard: int) -> Future[NDArray[np.uint8]]:
        known = self._kept.get(shard)
        if known is None or known.done() and known.exception():
            return self._pool.submit(self._dataset.shard, shard, self._stop)
        return known


def schedule_of(dataset: Dataset, stream: Order, train: bool, global_batch: int) -> ShardSchedule | None:
    """When shards are needed; None for a dataset on disk. Raises UserError if its cache is too small for that."""
    if not isinstance(stream, WindowStream):
        return None
    schedule: ShardSchedule = stream if train else EvaluationSchedule(dataset)
    check_cache(schedule, global_batch, validation_size(dataset) if train else 0)
    return schedule


def check_cache(schedule: ShardSchedule, global_batch: int, other: int) -> None:
    """Raise UserError unless the cache has room for all that is in use at once, so that no rank waits for another.

    other: bytes that another loader uses at the same time.
    """
    windows, longest = len(schedule.bounds) - 1, int(np.diff(schedule.bounds).max())
    least = int(np.diff(schedule.bounds).min() * schedule.counts.min())  # samples of a window
    live = max(2, 1 + math.ceil((IN_FLIGHT * global_batch - 1) / least))  # windows: those in use, at least one to come
    manifest, cache = schedule.dataset.manifest, schedule.dataset.cache
    sizes = np.sort(np.array(shard_sizes(manifest, schedule.dataset.split))[schedule.shards])
    need = int(sizes[-min(live, windows) * longest:].sum()) + table_size(manifest) + other
    if need > cache.size:
        raise UserError(f"cache.size_gb {cache.size_gb:g} is too small: the shards being read and the next ones take "
                        f"{size_text(need)}; raise it, or lower cache.window, which is {cache.window}")


def validation_size(dataset: Dataset) -> int:
    """Bytes of cache that an evaluation of split val during training uses, if there is one."""
    there = "val" in dataset.manifest["splits"]
    return sum(sorted(shard_sizes(dataset.manifest, "val"))[-2 * EVALUATION_WINDOW:]) if there else 0
