"""Several datasets drawn as one: their rows one after another, their classes joined by landmark id."""
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from arcshard.urls import is_url
from loader.draws import SeedChannel, hash64
from loader.order import sample_at
from loader.streams import IntArray, Order, Selection, Stream, WindowStream, run_of, starts
from shards import Dataset


class Mixture:
    """What a Loader reads of a Dataset, for the same split of several.

    Labels of the first dataset stay; photos of the others take the label of their landmark there, and landmarks that it
    lacks get the labels after its own.
    """

    def __init__(self, datasets: Sequence[Dataset]):
        self.datasets = datasets
        self.path, self.split = datasets[0].path, datasets[0].split
        self.first_rows = starts(np.array([len(dataset) for dataset in datasets]))
        self.index = JoinedRows([dataset.index for dataset in datasets], self.first_rows)
        self.landmark_ids, label_maps = join_classes([dataset.landmark_ids for dataset in datasets])
        self.labels = np.concatenate([of_old[dataset.labels] for of_old, dataset in zip(label_maps, datasets)])
        """int32 (N,): 4 bytes of memory for each sample."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.landmark_ids)

    @property
    def fingerprint(self) -> str:
        """Hex digest of the datasets' fingerprints."""
        return hashlib.sha256("".join(dataset.fingerprint for dataset in self.datasets).encode()).hexdigest()

    def checked_view(self, i: int) -> NDArray[np.uint8]:
        """As Dataset.checked_view: the JPEG of sample i."""
        number = int(run_of(self.first_rows, np.array(i)))
        return self.datasets[number].checked_view(i - int(self.first_rows[number]))


class JoinedRows:
    """Memory-mapped arrays one after another; rows are copied out by number, nothing else is read."""

    def __init__(self, parts: Sequence[NDArray[Any]], first_rows: IntArray):
        self.parts, self.first_rows = parts, first_rows

    def __getitem__(self, rows: IntArray) -> NDArray[Any]:
        found = np.empty(rows.shape, self.parts[0].dtype)
        owner = run_of(self.first_rows, rows)
        for number in np.unique(owner):
            chosen = owner == number
            found[chosen] = self.parts[number][rows[chosen] - self.first_rows[number]]
        return found


class MixedStream(Order):
    """An epoch shows each selected photo of the first dataset once, and those of each other as often as selection.mix
    says.

    Each dataset has an endless stream of its own; an epoch takes the next images of each, in one shuffled order.
    """

    def __init__(self, mixture: Mixture, selection: Selection, seed: int):
        self.seed, self._times = seed, [1.0, *selection.mix.values()]
        self._first_rows = mixture.first_rows
        self._streams = [Stream(dataset, selection, int(hash64(seed, SeedChannel.DATASET, number)[0]))
                         for number, dataset in enumerate(mixture.datasets)]
        self._quotas = np.array([max(1, round(times * stream.epoch_size))
                                 for times, stream in zip(self._times, self._streams)])
        self._first_places = starts(self._quotas)
        self.epoch_size = int(self._quotas.sum())

    def rows(self) -> IntArray:
        return np.concatenate([first + np.arange(stream.dataset_size)[stream.rows()]
                               for first, stream in zip(self._first_rows, self._streams)])

    def sample_at(self, positions: IntArray) -> IntArray:
        place, epoch = sample_at(positions, self.epoch_size, self.seed), positions // self.epoch_size
        owner = run_of(self._first_places, place)
        rows = np.empty_like(place)
        for number in np.unique(owner):
            chosen = owner == number
            own = epoch[chosen] * self._quotas[number] + place[chosen] - self._first_places[number]
            rows[chosen] = self._first_rows[number] + self._streams[number].sample_at(own)
        return rows

    def peers(self, position: int) -> range:
        """The positions of the first epoch."""
        return range(self.epoch_size)

    def fingerprint(self) -> dict[str, object]:
        parts = [stream.fingerprint() for stream in self._streams]
        return {**parts[0], "selected": [part["selected"] for part in parts], "mix": self._times[1:]}


def mixed(dataset: Dataset, selection: Selection) -> Dataset | Mixture:
    """The dataset joined with those that selection.mix names, if any. Raises UserError as Dataset does."""
    paths = [str(dataset.path), *selection.mix]
    if selection.mix and (remote := [path for path in paths if is_url(path)]):
        raise UserError("select.mix draws from all shards of its datasets at once, which object storage cannot do: "
                        f"copy {', '.join(remote)} to a disk")
    others = [Dataset(path, dataset.split) for path in selection.mix]
    return Mixture([dataset, *others]) if others else dataset


def order_of(dataset: Dataset | Mixture, selection: Selection, seed: int) -> Order:
    """The order in which training draws from the dataset. Raises UserError for a selection that it cannot serve."""
    if isinstance(dataset, Mixture):
        return MixedStream(dataset, selection, seed)
    return (WindowStream if dataset.is_remote else Stream)(dataset, selection, seed)


def join_classes(landmark_ids: Sequence[Sequence[str]]) -> tuple[list[str], list[NDArray[np.int32]]]:
    """The union of the datasets' landmark ids in order of first occurrence, and for each dataset its new labels.

    These are int32: element l is the new label of old label l, the last, also element -1, is -1 (no landmark).
    """
    label_of: dict[str, int] = {}
    maps = [np.array([*(label_of.setdefault(name, len(label_of)) for name in names), -1], np.int32)
            for names in landmark_ids]
    return list(label_of), maps
