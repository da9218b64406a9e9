"""Several datasets drawn as one: rows one after another, classes joined by their landmark ids."""
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from arcshard.urls import is_url
from loader.draws import hash64
from loader.order import sample_at
from loader.streams import IntArray, Order, Selection, Stream, WindowStream, starts
from shards import Dataset

MEMBER_STREAM = 600  # channel of randomness, beside those in views.py, fetch.py, selection.py and train.py


class Mixture:
    """What a Loader reads of a Dataset, for the same split of several. Labels of the first stay what they are; the
    others' photos take the label of their landmark there, and landmarks that it lacks get labels after its own.
    """

    def __init__(self, datasets: Sequence[Dataset]):
        self.datasets = datasets
        self.path, self.split = datasets[0].path, datasets[0].split
        self.first_rows = starts(np.array([len(dataset) for dataset in datasets]))
        self.index = JoinedRows([dataset.index for dataset in datasets], self.first_rows)
        self.landmark_ids, label_maps = join_classes([dataset.landmark_ids for dataset in datasets])
        self.labels = np.concatenate([of_old[dataset.labels] for of_old, dataset in zip(label_maps, datasets)])
        """int32 (N,), 4 bytes a sample in memory."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.landmark_ids)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the members' fingerprints."""
        return hashlib.sha256("".join(dataset.fingerprint for dataset in self.datasets).encode()).hexdigest()

    def checked_view(self, i: int) -> NDArray[np.uint8]:
        """The JPEG of sample i, as its dataset's checked_view."""
        member = int(np.searchsorted(self.first_rows, i, side="right")) - 1
        return self.datasets[member].checked_view(i - int(self.first_rows[member]))


class JoinedRows:
    """Memory-mapped arrays one after another: rows by number, copied out; nothing else is read."""

    def __init__(self, parts: Sequence[NDArray[Any]], first_rows: IntArray):
        self.parts, self.first_rows = parts, first_rows

    def __getitem__(self, rows: IntArray) -> NDArray[Any]:
        found = np.empty(rows.shape, self.parts[0].dtype)
        member = np.searchsorted(self.first_rows, rows, side="right") - 1
        for number in np.unique(member):
            chosen = member == number
            found[chosen] = self.parts[number][rows[chosen] - self.first_rows[number]]
        return found


class MixedStream:
    """An epoch shows each selected photo of the first dataset once, and those of every other so many times.

    Each dataset has an endless stream of its own; an epoch takes the next images of each, in one shuffled order. All is
    a pure function of datasets, selection, seed and position, as in Stream.
    """

    def __init__(self, mixture: Mixture, selection: Selection, seed: int):
        self.seed, self._times = seed, [1.0, *selection.mix.values()]
        self._first_rows = mixture.first_rows
        self._streams = [Stream(dataset, selection, int(hash64(seed, MEMBER_STREAM, number)[0]))
                         for number, dataset in enumerate(mixture.datasets)]
        self._quotas = np.array([max(1, round(times * stream.epoch_size))
                                 for times, stream in zip(self._times, self._streams)])
        self._first_places = starts(self._quotas)
        self.epoch_size = int(self._quotas.sum())

    def rows(self) -> IntArray:
        """As Stream.rows, but always numbers."""
        return np.concatenate([first + np.arange(stream.dataset_size)[stream.rows()]
                               for first, stream in zip(self._first_rows, self._streams)])

    def sample_at(self, positions: IntArray) -> IntArray:
        """As Stream.sample_at."""
        place, epoch = sample_at(positions, self.epoch_size, self.seed), positions // self.epoch_size
        member = np.searchsorted(self._first_places, place, side="right") - 1
        rows = np.empty_like(place)
        for number in np.unique(member):
            chosen = member == number
            own = epoch[chosen] * self._quotas[number] + place[chosen] - self._first_places[number]
            rows[chosen] = self._first_rows[number] + self._streams[number].sample_at(own)
        return rows

    def peers(self, position: int) -> range:
        """As Stream.peers."""
        return range(self.epoch_size)

    def fingerprint(self) -> dict[str, object]:
        """As Stream.fingerprint, for each dataset."""
        parts = [stream.fingerprint() for stream in self._streams]
        return {**parts[0], "selected": [part["selected"] for part in parts], "mix": self._times[1:]}


def mixed(dataset: Dataset, selection: Selection) -> Dataset | Mixture:
    """The dataset with those that selection.mix names beside it, if any. Raises UserError as Dataset does."""
    paths = [str(dataset.path), *selection.mix]
    if selection.mix and (remote := [path for path in paths if is_url(path)]):
        raise UserError("select.mix draws from all shards of its datasets at once, which object storage cannot give; "
                        f"copy {', '.join(remote)} to a disk")
    others = [Dataset(path, dataset.split) for path in selection.mix]
    return Mixture([dataset, *others]) if others else dataset


def order_of(dataset: Dataset | Mixture, selection: Selection, seed: int) -> Order:
    """The order in which training draws from it."""
    if isinstance(dataset, Mixture):
        return MixedStream(dataset, selection, seed)
    return (WindowStream if dataset.is_remote else Stream)(dataset, selection, seed)


def join_classes(landmark_ids: Sequence[Sequence[str]]) -> tuple[list[str], list[NDArray[np.int32]]]:
    """Landmark ids of all datasets, each once, in the order in which they first occur; and for each dataset the new
    label of its label l at [l], with -1 (no landmark) at [-1]."""
    label_of: dict[str, int] = {}
    maps = [np.array([*(label_of.setdefault(name, len(label_of)) for name in names), -1], np.int32)
            for names in landmark_ids]
    return list(label_of), maps
