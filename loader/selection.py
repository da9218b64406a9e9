"""Which photos of a split are drawn, and how often: other functions over the same index, never another format."""
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from loader.hashing import hash64
from loader.order import sample_at
from shards import Dataset

IntArray = NDArray[np.int64]
CLASS_STREAM = 400  # channel of randomness, beside those in views.py and fetch.py
KEYS_AT_A_TIME = 100_000  # of an index that is mapped, not in memory


@dataclass(frozen=True)
class Selection:
    """What an epoch holds."""

    subset: str | None = None
    """File with the keys of the photos to draw from, one a line; null: all."""
    block: str | None = None
    """File with the keys of photos never to draw, one a line."""
    per_class: int | None = None
    """Most images of a class an epoch: a larger class shows others in the next, each equally often; null: no limit."""
    balance: float = 1.0
    """A class that could show n images an epoch gets a part proportional to n^balance: 1 just these, 0 the same for
    every class; the epoch's length stays."""
    mix: dict[str, float] = field(default_factory=dict)
    """Other datasets, and how many times an epoch shows each of their photos besides, {data/full: 0.5}: a class is that
    of the same landmark_id, and those that --data lacks come after its own. The fields above apply to each."""

    def __post_init__(self) -> None:
        if self.per_class is not None and self.per_class < 1:
            raise ValueError(f"select.per_class must be at least 1, or null for no limit; got {self.per_class}")
        if not 0 <= self.balance <= 1:
            raise ValueError(f"select.balance must lie in [0, 1]; got {self.balance}")
        for path, times in self.mix.items():
            if not times > 0:
                raise ValueError(f"select.mix says how many times an epoch shows a photo, above 0; got {times} for "
                                 f"{path}")


class Order(Protocol):
    """An endless stream of samples to train on: a pure function of position."""

    seed: int
    epoch_size: int
    """Samples an epoch."""

    def rows(self) -> IntArray | slice:
        """Rows of the dataset's index that may be drawn: an index into its arrays."""

    def sample_at(self, positions: IntArray) -> IntArray:
        """Rows of the dataset's index, int64 (n,), at positions (n,) of the stream."""

    def peers(self, position: int) -> range:
        """The positions whose samples may take the place of a rotten one."""

    def fingerprint(self) -> dict[str, object]:
        """What the stream depends on, the dataset and the seed apart."""


class Stream:
    """The endless stream of samples to train on: a pure function of dataset, selection, seed and position.

    With `per_class` or `balance`, each class has an endless stream of its own, every pass of which holds each of its
    images once, and an epoch takes the next few of each class; otherwise an epoch holds every selected sample once.
    """

    def __init__(self, dataset: Dataset, selection: Selection, seed: int):
        self.selection, self.seed, self.dataset_size = selection, seed, len(dataset)
        chosen = selected(dataset, selection)
        self.epoch_size = len(dataset) if chosen is None else len(chosen)
        """Samples an epoch."""
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
        """Rows of the dataset's index that may be drawn: an index into its arrays."""
        return slice(None) if self._rows is None else self._rows

    def sample_at(self, positions: IntArray) -> IntArray:
        """Rows of the dataset's index, int64 (n,), at positions (n,) of the stream."""
        place = sample_at(positions, self.epoch_size, self.seed)
        if self._quotas is not None:
            place = self._row_of_class(place, positions // self.epoch_size)
        return place if self._rows is None else self._rows[place]

    def peers(self, position: int) -> range:
        """Those of the first epoch."""
        return range(self.epoch_size)

    def _row_of_class(self, place: IntArray, epoch: IntArray) -> IntArray:
        """Where in self._rows the class that owns each place of the epoch stands in its own stream."""
        assert self._quotas is not None
        group = np.searchsorted(self._first_place, place, side="right") - 1
        position = epoch * self._quotas[group] + place - self._first_place[group]
        return self._first_row[group] + sample_at(position, self._sizes[group], hash64(self.seed, CLASS_STREAM, group))

    def fingerprint(self) -> dict[str, object]:
        """What the stream depends on, the dataset and the seed apart."""
        return {"selected": chosen_fingerprint(self._rows), "per_class": self.selection.per_class,
                "balance": self.selection.balance}


def chosen_fingerprint(rows: IntArray | None) -> str:
    """Tells apart sets of rows of one index, in any order; None: all of them."""
    return "all" if rows is None else hashlib.sha256(np.sort(rows).tobytes()).hexdigest()


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
        raise UserError(f"select.subset and select.block must leave something to train on; of the {len(dataset):,} "
                        f"photos of split {dataset.split} in {dataset.path} they leave none: their lines must be keys, "
                        f"such as {dataset.index['key'][0].decode()}")
    return rows


def read_keys(path: str) -> set[bytes]:
    """The lines of a file, spaces and empty lines left out. Raises UserError if it cannot be read."""
    try:
        return set(Path(path).read_bytes().split())
    except OSError as error:
        raise UserError(f"a list of keys must be a text file, one key a line; {path} cannot be read "
                        f"({error.strerror}): give another") from None


def shares(weights: NDArray[np.float64], total: int) -> IntArray:
    """Whole parts of `total` proportional to `weights` (n,), by largest remainder; equal remainders: the first."""
    exact = weights / weights.sum() * total
    parts = np.floor(exact).astype(np.int64)
    more = np.argsort(parts - exact, kind="stable")[:total - parts.sum()]
    parts[more] += 1
    return parts


def _keys(dataset: Dataset) -> Iterator[bytes]:
    for start in range(0, len(dataset), KEYS_AT_A_TIME):
        yield from dataset.index["key"][start:start + KEYS_AT_A_TIME].tolist()


def starts(sizes: IntArray) -> IntArray:
    """Where each of consecutive runs of these lengths begins."""
    return np.cumsum(sizes) - sizes
