"""Shards from object storage that arrive before they are needed, fetched by threads while training goes on."""
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from threading import Event
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError, size_text
from loader.draws import hash64
from loader.mixture import Mixture
from loader.pipeline import PREFETCH
from loader.streams import IN_ORDER, InOrder, IntArray, Order, WindowStream
from shards import CorruptSample, Dataset
from shards.manifest import shard_sizes, table_size

# Bytes of the planned samples, checked before the decoder sees them: a DALI pipeline does not survive a bad JPEG.

REPLACE = 300  # channel of randomness, beside those in views.py
ATTEMPTS = 1000
PART = 8  # samples that a thread reads at a time
Bytes = NDArray[np.uint8]
Item = TypeVar("Item")
PendingReads = Iterator[tuple[Bytes, int]]
"""Bytes and the row that they really are of, in the order asked for; reading began when it was made."""


def read(dataset: Dataset | Mixture, ids: NDArray[np.int64], pool: Executor) -> PendingReads:
    """Start to read the samples. The iterator raises CorruptSample for the first that rotted."""
    return _in_parts(lambda sample: (dataset.checked_view(sample), sample), pool, ids)


def read_or_replace(dataset: Dataset | Mixture, ids: NDArray[np.int64], stream: Order, positions: NDArray[np.int64],
                    pool: Executor) -> PendingReads:
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


def _in_parts(job: Callable[..., tuple[Bytes, int]], pool: Executor, *columns: NDArray[np.int64]) -> PendingReads:
    """pool.map of the job over the columns, begun at once; a future a sample would cost as much as its read."""
    rows = list(zip(*(column.tolist() for column in columns)))
    parts = [rows[start:start + PART] for start in range(0, len(rows), PART)]
    return chain.from_iterable(pool.map(lambda part: [job(*row) for row in part], parts))


def collect(pending: PendingReads) -> tuple[list[Bytes], NDArray[np.int64]]:
    """Wait for the reads: the samples' bytes, and the rows that they really are of, int64 (n,)."""
    data, ids = zip(*pending)
    return list(data), np.array(ids, np.int64)


def one_ahead(items: Iterator[Item], thread: Executor) -> Iterator[Item]:
    """The same items, each made in the thread while the one before is in use. An error comes in its item's place."""
    making = thread.submit(next, items, None)
    while (item := making.result()) is not None:
        making = thread.submit(next, items, None)
        yield item


WaitForShards = Callable[[IntArray, IntArray], None]
"""Waits for the bytes of rows at rising positions of the stream, both (n,)."""

FETCHERS = 4  # threads, each with a shard
IN_FLIGHT = PREFETCH + 4  # global batches whose bytes may be in use: DALI's, two being planned, two of other ranks


class ShardSchedule(Protocol):
    """The shards that a stream needs, in windows numbered in the order of need: a pure function."""

    dataset: Dataset
    shards: IntArray
    """Those that are ever needed, (S,)."""
    counts: IntArray
    """Their samples, (S,)."""
    bounds: IntArray
    """The windows' ends among S shards, (n + 1,)."""

    def windows_of(self, positions: IntArray) -> tuple[int, int]:
        """First and last number of the windows that rising positions fall into."""

    def shards_of(self, window: int) -> list[int]:
        """The shards of a window, as the dataset numbers them; none after the end of the stream."""


class ShardsAhead:
    """Holds the shards of the windows in use on local disk, and fetches those of the next one.

    turn: share of each window, in [0, 1), after which it begins: ranks that share a cache fetch different shards first.
    """

    def __init__(self, schedule: ShardSchedule, turn: float):
        self._schedule, self._dataset, self._turn = schedule, schedule.dataset, turn
        self._held: dict[int, Future[NDArray[np.uint8]]] = {}
        self._stop = Event()
        self._pool = ThreadPoolExecutor(FETCHERS, "shards")

    def wait_for(self, positions: IntArray, ids: IntArray) -> None:
        """Wait until the shards of rows `ids` (n,), at rising `positions` (n,), are here; let those before them go.

        Raises UserError if one of them cannot be had. What fails before it is needed is begun again with the next call.
        """
        first, last = self._schedule.windows_of(positions)
        wanted = [shard for window in range(first, max(last, first + 1) + 1) for shard in self._in_turn(window)]
        self._held = {shard: self._fetch(shard) for shard in wanted}
        for shard in np.unique(self._dataset.index["shard"][ids]).tolist():
            self._held[shard].result()

    def close(self) -> None:
        """End the threads, which takes as long as the request that each has under way."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        self._held.clear()

    def _in_turn(self, window: int) -> list[int]:
        shards = self._schedule.shards_of(window)
        start = int(self._turn * len(shards))
        return shards[start:] + shards[:start]

    def _fetch(self, shard: int) -> Future[NDArray[np.uint8]]:
        known = self._held.get(shard)
        if known is None or known.done() and known.exception():
            return self._pool.submit(self._dataset.shard, shard, self._stop)
        return known


@contextmanager
def shards_ahead(schedule: ShardSchedule | None, turn: float) -> Iterator[WaitForShards]:
    """What a loader calls before it reads. schedule: None if nothing is far away; turn: see ShardsAhead."""
    if schedule is None:
        yield already_here
        return
    ahead = ShardsAhead(schedule, turn)
    try:
        yield ahead.wait_for
    finally:
        ahead.close()


def already_here(positions: IntArray, ids: IntArray) -> None:
    """ShardsAhead.wait_for of a dataset on disk."""


def shard_schedule(dataset: Dataset, stream: Order, train: bool, global_batch: int) -> ShardSchedule | None:
    """How shards are needed; None for a dataset on disk. Raises UserError if its cache is too small for that."""
    if not isinstance(stream, WindowStream):
        return None
    schedule: ShardSchedule = stream if train else InOrder(dataset)
    refuse_small_cache(schedule, global_batch, validation_size(dataset) if train else 0)
    return schedule


def refuse_small_cache(schedule: ShardSchedule, global_batch: int, beside: int) -> None:
    """Raises UserError unless the cache has room for all that is in use at once, so that no rank waits for another.

    beside: bytes that another loader uses meanwhile.
    """
    windows, longest = len(schedule.bounds) - 1, int(np.diff(schedule.bounds).max())
    least = int(np.diff(schedule.bounds).min() * schedule.counts.min())  # samples of a window
    live = max(2, 1 + math.ceil((IN_FLIGHT * global_batch - 1) / least))  # windows: those in use, at least one to come
    manifest, cache = schedule.dataset.manifest, schedule.dataset.cache
    sizes = np.sort(np.array(shard_sizes(manifest, schedule.dataset.split))[schedule.shards])
    need = int(sizes[-min(live, windows) * longest:].sum()) + table_size(manifest) + beside
    if need > cache.size:
        raise UserError("the cache must have room for the shards being read and those that come next, here "
                        f"{size_text(need)}, but cache.size_gb is {cache.size_gb:g}: raise it, or lower cache.window, "
                        f"which is {cache.window}")


def validation_size(dataset: Dataset) -> int:
    """Bytes of cache that an evaluation of split val beside the training uses, where there is one."""
    there = "val" in dataset.manifest["splits"]
    return sum(sorted(shard_sizes(dataset.manifest, "val"))[-2 * IN_ORDER:]) if there else 0
