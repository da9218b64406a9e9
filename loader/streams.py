"""Which photos training draws, and in which order: pure functions from the position in an endless stream to a sample.

Over the same index there are a stream of a dataset on disk, all of which mixes (Stream), and one of a dataset in object
storage, which mixes a window of shards at a time (WindowStream); loader/mixture.py has that of several datasets.
"""
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError, expand_home
from arcshard.fields import RUNTIME, WITH_DATA, check
from loader.draws import SeedChannel, hash64
from loader.order import sample_at
from shards import Dataset
from shards.format import key_text

IntArray = NDArray[np.int64]
KEYS_AT_A_TIME = 100_000  # of an index that is mapped, not in memory
EVALUATION_WINDOW = 4  # shards that evaluation fetches at a time: it mixes nothing


@dataclass(frozen=True)
class Selection:
    """Which photos an epoch holds."""

    subset: str | None = field(default=None, metadata=RUNTIME)
    """File with the keys of the photos to draw from, one on each line; null: all."""
    block: str | None = field(default=None, metadata=RUNTIME)
    """File with the keys of photos never to draw, one on each line."""
    per_class: int | None = field(default=None, metadata=WITH_DATA)
    """Largest number of images of a class in an epoch: a larger class shows others in the next epoch, each equally
    often; null: no limit."""
    balance: float = field(default=1.0, metadata=WITH_DATA)
    """A class with n images in an epoch gets a share proportional to n^balance: 1 is no change, 0 the same for every
    class; the length of an epoch stays."""
    mix: dict[str, float] = field(default_factory=dict, metadata=RUNTIME)
    """Other datasets, and how many times an epoch shows each of their photos, {data/full: 0.5}. Classes are joined by
    landmark_id; those that --data lacks come after its own. The fields above apply to each dataset."""

    def __post_init__(self) -> None:
        check(self.per_class is None or self.per_class > 0, "select.per_class", self.per_class,
              "give 1 or more, or null for no limit")
        check(0 <= self.balance <= 1, "select.balance", self.balance, "give 0 to 1")
        for path, times in self.mix.items():
            check(0 < times < math.inf, f"select.mix of {path}", times,
                  "give how many times an epoch shows its photos, above 0")


class Order(Protocol):
    """An endless stream of samples to train on: a pure function of dataset, selection, seed and position."""

    seed: int
    epoch_size: int
    """Samples in an epoch."""

    def rows(self) -> IntArray | slice:
        """Rows of the dataset's index that may be drawn: an index into its arrays."""

    def sample_at(self, positions: IntArray) -> IntArray:
        """Rows of the dataset's index, int64 (n,), at positions (n,) of the stream."""

    def peers(self, position: int) -> range:
        """The positions whose samples may replace a corrupt one."""

    def fingerprint(self) -> dict[str, object]:
        """What the stream depends on, except the dataset and the seed."""


class ShardSchedule(Protocol):
    """The shards that a stream needs, in windows numbered in the order of need: a pure function."""

    dataset: Dataset
    shards: IntArray
    """Those that are ever needed, rising, (S,)."""
    counts: IntArray
    """How many samples of each are needed, (S,)."""
    bounds: IntArray
    """Where in the order of S shards the windows begin, and its end, (n + 1,)."""

    def windows_of(self, positions: IntArray) -> tuple[int, int]:
        """First and last number of the windows that rising positions fall into."""

    def shards_of(self, window: int) -> list[int]:
        """The shards of a window, as the dataset numbers them; none after the end of the stream."""


# Selected rows.


def selected(dataset: Dataset, selection: Selection) -> IntArray | None:
    """Rows of the index that are in the subset and not blocked, int64, rising; None: all.

    Raises UserError for a file that cannot be read, and if nothing is left.
    """
    if selection.subset is None and selection.block is None:
        return None
    subset, block = (path and read_keys(path) for path in (selection.subset, selection.block))
    rows = np.fromiter((row for row, key in enumerate(_keys(dataset))
                        if (subset is None or key in subset) and not (block and key in block)), np.int64)
    if not len(rows):
        raise UserError(f"select.subset and select.block leave none of the {len(dataset):,} photos of split "
                        f"{dataset.split} in {dataset.path} to train on: give a key on each line, such as "
                        f"{key_text(dataset.index['key'][0])}")
    return rows


def read_keys(path: str) -> set[bytes]:
    """The lines of a file, without spaces and empty lines. Raises UserError if it cannot be read."""
    try:
        return set(Path(expand_home(path)).read_bytes().split())
    except OSError as error:
        raise UserError(f"the list of keys {path} cannot be read ({error.strerror}): give another text file, one key "
                        "on each line") from None


def _keys(dataset: Dataset) -> Iterator[bytes]:
    for start in range(0, len(dataset), KEYS_AT_A_TIME):
        yield from dataset.index["key"][start:start + KEYS_AT_A_TIME].tolist()


def rows_fingerprint(rows: IntArray | None) -> str:
    """Tells apart sets of rows of one index, in any order; None: all of them."""
    return "all" if rows is None else hashlib.sha256(np.sort(rows).tobytes()).hexdigest()


# A dataset on disk: every photo mixes with every other.


class Stream(Order):
    """The stream of a dataset on disk.

    With `per_class` or `balance`, each class has an endless stream of its own, every pass of which holds each of its
    images once, and an epoch takes the next few of each class; otherwise an epoch holds every selected sample once.
    """

    def __init__(self, dataset: Dataset, selection: Selection, seed: int):
        self.selection, self.seed, self.dataset_size = selection, seed, len(dataset)
        chosen = selected(dataset, selection)
        self.epoch_size = len(dataset) if chosen is None else len(chosen)
        self._rows = chosen  # None: every row, in order
        self._quotas: IntArray | None = None
        if selection.per_class is not None or selection.balance != 1:
            rows = np.arange(len(dataset)) if chosen is None else chosen
            _, group, sizes = np.unique(dataset.labels[rows], return_inverse=True, return_counts=True)
            self._rows, self._sizes = rows[np.argsort(group, kind="stable")], sizes
            allowed = np.minimum(sizes, selection.per_class or sizes.max())
            self.epoch_size = int(allowed.sum())
            self._quotas = shares(allowed.astype(np.float64) ** selection.balance, self.epoch_size)
            self._first_row, self._first_place = starts(sizes), starts(self._quotas)

    def rows(self) -> IntArray | slice:
        return slice(None) if self._rows is None else self._rows

    def sample_at(self, positions: IntArray) -> IntArray:
        place = sample_at(positions, self.epoch_size, self.seed)
        if self._quotas is not None:
            place = self._row_of_class(place, positions // self.epoch_size)
        return place if self._rows is None else self._rows[place]

    def peers(self, position: int) -> range:
        """The positions of the first epoch."""
        return range(self.epoch_size)

    def fingerprint(self) -> dict[str, object]:
        return {"selected": rows_fingerprint(self._rows), "per_class": self.selection.per_class,
                "balance": self.selection.balance}

    def _row_of_class(self, place: IntArray, epoch: IntArray) -> IntArray:
        """Where in self._rows the class that owns each place of the epoch stands in its own stream."""
        assert self._quotas is not None
        group = run_of(self._first_place, place)
        position = epoch * self._quotas[group] + place - self._first_place[group]
        return self._first_row[group] + sample_at(position, self._sizes[group],
                                                  hash64(self.seed, SeedChannel.CLASS, group))


def shares(weights: NDArray[np.float64], total: int) -> IntArray:
    """Whole parts of `total` proportional to `weights` (n,), by largest remainder; equal remainders: the first."""
    exact = weights / weights.sum() * total
    parts = np.floor(exact).astype(np.int64)
    more = np.argsort(parts - exact, kind="stable")[:total - parts.sum()]
    parts[more] += 1
    return parts


def starts(sizes: IntArray) -> IntArray:
    """Where each of consecutive runs of these lengths begins."""
    return np.cumsum(sizes) - sizes


def run_of(begins: IntArray, places: IntArray) -> IntArray:
    """In which of the consecutive runs that begin at `begins` each place falls."""
    return np.searchsorted(begins, places, side="right") - 1


# A dataset in object storage: shards are permuted, then the samples of a window of shards.
#
# Object storage must have sent a whole window before its samples can mix. Packing shuffled all samples over the shards,
# so a window is a random part of the dataset; docs/object-storage.md says what is lost nevertheless.


class Layout(NamedTuple):
    """An epoch of S shards in n windows."""

    shards: IntArray
    """Numbers among the shards that have samples, in order of need, (S,)."""
    begins: IntArray
    """Places of the epoch at which the samples of each shard begin, and its length, (S + 1,)."""
    windows: IntArray
    """Places at which windows begin, and its length, (n + 1,)."""


class WindowStream(Order):
    """The stream of a dataset in object storage, which mixes `window` shards at a time; its own ShardSchedule.

    An epoch of S shards has n = ceil(S / window) windows of nearly the same number of shards; window number e·n + k is
    the k-th of epoch e. Memory, and the first look at an epoch, grow with the number of shards, not of samples.

    Raises UserError for a selection that draws each class separately, since any class may be in any shard.
    """

    def __init__(self, dataset: Dataset, selection: Selection, seed: int):
        if selection.per_class is not None or selection.balance != 1:
            raise UserError("select.per_class and select.balance look for each class in all shards, which a dataset in "
                            f"object storage brings only {dataset.cache.window} at a time; for {dataset.path} leave "
                            "both out, or copy it to a disk")
        self.dataset, self.seed, self.window = dataset, seed, dataset.cache.window
        self._rows = selected(dataset, selection)  # None: every row, in order
        numbers = dataset.index["shard"] if self._rows is None else dataset.index["shard"][self._rows]
        counts = np.bincount(numbers, minlength=dataset.num_shards)
        self.shards: IntArray = np.flatnonzero(counts)
        self.counts: IntArray = counts[self.shards]
        self.epoch_size = int(self.counts.sum())
        self._first_row = starts(self.counts)
        self.bounds = window_bounds(len(self.shards), self.window)
        self._layout = lru_cache(4)(partial(lay_out, self.counts, self.bounds, seed))

    def rows(self) -> IntArray | slice:
        return slice(None) if self._rows is None else self._rows

    def sample_at(self, positions: IntArray) -> IntArray:
        rows = np.empty(len(positions), np.int64)
        for epoch, here, place in self._by_epoch(positions):
            layout = self._layout(epoch)
            window, first, size = self._window(epoch, place)
            place = first + sample_at(place - first, size, hash64(self.seed, SeedChannel.WINDOW, epoch, window))
            slot = run_of(layout.begins, place)
            rows[here] = self._first_row[layout.shards[slot]] + place - layout.begins[slot]
        return rows if self._rows is None else self._rows[rows]

    def peers(self, position: int) -> range:
        """The positions of the same window, whose shards are on this machine."""
        epoch, place = divmod(position, self.epoch_size)
        _, first, size = (int(number[0]) for number in self._window(epoch, np.array([place])))
        first += epoch * self.epoch_size
        return range(first, first + size)

    def fingerprint(self) -> dict[str, object]:
        return {"selected": rows_fingerprint(self._rows), "per_class": None, "balance": 1.0, "window": self.window,
                "shards": len(self.shards)}

    def windows_of(self, positions: IntArray) -> tuple[int, int]:
        """As ShardSchedule.windows_of."""
        first, last = (self._window_number(position) for position in positions[[0, -1]].tolist())
        return first, last

    def shards_of(self, window: int) -> list[int]:
        """As ShardSchedule.shards_of."""
        epoch, number = divmod(window, len(self.bounds) - 1)
        return self.shards[self._layout(epoch).shards[self.bounds[number]:self.bounds[number + 1]]].tolist()

    def _window_number(self, position: int) -> int:
        epoch, place = divmod(position, self.epoch_size)
        return epoch * (len(self.bounds) - 1) + int(self._window(epoch, np.array([place]))[0][0])

    def _by_epoch(self, positions: IntArray) -> Iterator[tuple[int, NDArray[np.bool_], IntArray]]:
        """For each epoch of the positions: which they are, and their places in it."""
        epochs, places = np.divmod(positions, self.epoch_size)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            yield epoch, here, places[here]

    def _window(self, epoch: int, place: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """The windows of an epoch that its places fall into: number, first place and samples, each (n,)."""
        windows = self._layout(epoch).windows
        window = run_of(windows, place)
        return window, windows[window], windows[window + 1] - windows[window]


class EvaluationSchedule(ShardSchedule):
    """The shards as evaluation needs them, one after the other, a few at a time."""

    def __init__(self, dataset: Dataset):
        self.dataset, self._shards = dataset, dataset.index["shard"]
        self.counts = np.bincount(self._shards, minlength=dataset.num_shards)
        self.shards = np.arange(dataset.num_shards)
        self.bounds = window_bounds(dataset.num_shards, min(EVALUATION_WINDOW, dataset.cache.window))

    def windows_of(self, positions: IntArray) -> tuple[int, int]:
        first, last = run_of(self.bounds, self._shards[positions[[0, -1]]]).tolist()
        return first, last

    def shards_of(self, window: int) -> list[int]:
        return [*range(*self.bounds[window:window + 2].tolist())] if window < len(self.bounds) - 1 else []


def window_bounds(shards: int, window: int) -> IntArray:
    """Where the fewest windows of at most `window` shards begin, and the end; their lengths differ by one at most."""
    number = -(-shards // window)
    return np.arange(number + 1) * shards // number


def lay_out(counts: IntArray, bounds: IntArray, seed: int, epoch: int) -> Layout:
    """The order in which an epoch needs the shards that hold `counts` (S,) samples."""
    shards = sample_at(epoch * len(counts) + np.arange(len(counts)), len(counts), hash64(seed, SeedChannel.SHARDS))
    begins = np.concatenate([[0], np.cumsum(counts[shards])])
    return Layout(shards, begins, begins[bounds])
