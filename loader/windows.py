"""The order of training where shards come from afar: shards permuted, then the samples of a window of them.

A window is what object storage must have sent before its samples can mix. Packing shuffled all samples over the shards,
so that it is a random part of the dataset; docs/object-storage.md says what is lost all the same.
"""
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from loader.hashing import hash64
from loader.order import sample_at
from loader.selection import IntArray, Selection, chosen_fingerprint, selected, starts
from shards import Dataset

IN_ORDER = 4  # shards that evaluation fetches at a time: it mixes nothing
SHARDS, SAMPLES = 800, 801  # channels of randomness: the order of shards, and of the samples of a window


class Layout(NamedTuple):
    """An epoch of S shards in n windows."""

    shards: IntArray
    """Numbers among the shards that have samples, in order of need, (S,)."""
    begins: IntArray
    """Places of the epoch at which their samples begin, and its length, (S + 1,)."""
    windows: IntArray
    """Those at which windows begin, and its length, (n + 1,)."""


class WindowStream:
    """As selection.Stream, with an order that looks at `window` shards at a time: a pure function of the same kind.

    An epoch of S shards has n = ceil(S / window) windows of nearly the same number of shards; window number e·n + k is
    the k-th of epoch e. Memory, and the first look at an epoch, grow with the number of shards, not of samples.

    Raises UserError for a selection that draws classes apart, since any class may be in any shard.
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
        """Shards that hold something of the epoch, rising, (S,)."""
        self.counts: IntArray = counts[self.shards]
        """How much, (S,)."""
        self.epoch_size = int(self.counts.sum())
        """Samples an epoch."""
        self._first_row = starts(self.counts)
        self.bounds = window_bounds(len(self.shards), self.window)
        """Where in an epoch's order of shards the windows begin, and its end, (n + 1,)."""
        self._layout = lru_cache(4)(partial(lay_out, self.counts, self.bounds, seed))

    def rows(self) -> IntArray | slice:
        """Rows of the dataset's index that may be drawn: an index into its arrays."""
        return slice(None) if self._rows is None else self._rows

    def sample_at(self, positions: IntArray) -> IntArray:
        """Rows of the dataset's index, int64 (n,), at positions (n,) of the stream."""
        rows = np.empty(len(positions), np.int64)
        for epoch, here, place in self._by_epoch(positions):
            layout = self._layout(epoch)
            window, first, size = self._window(epoch, place)
            place = first + sample_at(place - first, size, hash64(self.seed, SAMPLES, epoch, window))
            slot = _run_of(layout.begins, place)
            rows[here] = self._first_row[layout.shards[slot]] + place - layout.begins[slot]
        return rows if self._rows is None else self._rows[rows]

    def peers(self, position: int) -> range:
        """Those of the same window, whose shards are here."""
        epoch, place = divmod(position, self.epoch_size)
        _, first, size = (int(number[0]) for number in self._window(epoch, np.array([place])))
        first += epoch * self.epoch_size
        return range(first, first + size)

    def windows_of(self, positions: IntArray) -> tuple[int, int]:
        """First and last number of the windows that rising positions fall into."""
        first, last = (self._window_number(position) for position in positions[[0, -1]].tolist())
        return first, last

    def shards_of(self, window: int) -> list[int]:
        """The shards of a window, as the dataset numbers them."""
        epoch, number = divmod(window, len(self.bounds) - 1)
        return self.shards[self._layout(epoch).shards[self.bounds[number]:self.bounds[number + 1]]].tolist()

    def fingerprint(self) -> dict[str, object]:
        """What the stream depends on, the dataset and the seed apart."""
        return {"selected": chosen_fingerprint(self._rows), "per_class": None, "balance": 1.0, "window": self.window,
                "shards": len(self.shards)}

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
        window = _run_of(windows, place)
        return window, windows[window], windows[window + 1] - windows[window]


class InOrder:
    """The shards as evaluation needs them, one after the other, a few at a time."""

    def __init__(self, dataset: Dataset):
        self.dataset, self._shards = dataset, dataset.index["shard"]
        self.counts: IntArray = np.bincount(self._shards, minlength=dataset.num_shards)
        """Samples of each shard, (S,)."""
        self.shards: IntArray = np.arange(dataset.num_shards)
        self.bounds = window_bounds(dataset.num_shards, min(IN_ORDER, dataset.cache.window))

    def windows_of(self, positions: IntArray) -> tuple[int, int]:
        """First and last number of the windows that rising positions fall into."""
        first, last = _run_of(self.bounds, self._shards[positions[[0, -1]]]).tolist()
        return first, last

    def shards_of(self, window: int) -> list[int]:
        """The shards of a window; none after the last."""
        return [*range(*self.bounds[window:window + 2].tolist())] if window < len(self.bounds) - 1 else []


def window_bounds(shards: int, window: int) -> IntArray:
    """Where the fewest windows of at most `window` shards begin, and the end; their lengths differ by one at most."""
    number = -(-shards // window)
    return np.arange(number + 1) * shards // number


def lay_out(counts: IntArray, bounds: IntArray, seed: int, epoch: int) -> Layout:
    """The order in which an epoch needs the shards that hold `counts` (S,) samples."""
    shards = sample_at(epoch * len(counts) + np.arange(len(counts)), len(counts), hash64(seed, SHARDS))
    begins = np.concatenate([[0], np.cumsum(counts[shards])])
    return Layout(shards, begins, begins[bounds])


def _run_of(begins: IntArray, places: IntArray) -> IntArray:
    """In which of the consecutive runs that begin at `begins` each place falls."""
    return np.searchsorted(begins, places, side="right") - 1
