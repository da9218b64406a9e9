"""Read one split of a dataset through memory maps."""
import hashlib
import json
import zlib
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from arcshard.console import UserError
from arcshard.csv_table import read_table
from arcshard.untrusted import read_array
from arcshard.urls import is_url
from shards.folder import open_folder
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    INDEX_DTYPE,
    LABEL_DTYPE,
    NO_LANDMARK,
    REJECTED,
    REJECTED_COLUMNS,
    index_name,
    key_text,
    labels_name,
    shard_name,
    truths_name,
)
from shards.remote import CacheConfig
from shards.tables import read_truths


class CorruptSample(UserError):
    """A sample whose bytes are not those that were packed; the message names split, shard, key and offset."""


class Dataset:
    """One split of a packed dataset, read-only. Opening reads dataset.json alone; the rest is mapped on use.

    Can be pickled (it travels as path, split and cache) and used from several threads at once. Raises UserError for
    a path that is no dataset and for a split that it does not have, and later for a file that is damaged (index,
    labels, classes, …) or cannot be fetched.

    Args:
        path: folder, or URL of one in object storage (s3://bucket/data), whose files are brought to local disk on use.
        split: which of its splits.
        cache: where they are brought to; a folder has no use for it.
    """

    def __init__(self, path: str | Path, split: str = "train", cache: CacheConfig = CacheConfig()):
        self.split, self.cache, self._folder = split, cache, open_folder(path, cache)
        self.path, self.manifest = self._folder.path, self._folder.manifest
        known = self.manifest["splits"]
        if split not in known:
            raise UserError(f"{path} has no split {split!r}: choose one of {', '.join(known)}")

    def __len__(self) -> int:
        return self.manifest["splits"][self.split]["samples"]

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, (self.path, self.split, self.cache)

    @property
    def is_remote(self) -> bool:
        """Whether it lies in object storage."""
        return is_url(self.path)

    @property
    def num_shards(self) -> int:
        """Shards of this split."""
        return self.manifest["splits"][self.split]["shards"]

    @cached_property
    def index(self) -> np.ndarray:
        """Memory-mapped rows (N,) of format.INDEX_DTYPE: shard, offset, size, width, height, crc32, key."""
        index = self._rows(index_name(self.split), INDEX_DTYPE)
        if index["shard"].min(initial=0) < 0 or index["shard"].max(initial=0) >= max(1, self.num_shards):
            raise UserError(f"{self.file(index_name(self.split))} names shards beyond 0 to {self.num_shards - 1}: run "
                            f"python -m shards verify {self.path}")
        return index

    @cached_property
    def labels(self) -> np.ndarray:
        """Memory-mapped int32 (N,): 0 … num_classes - 1, or -1 for no landmark."""
        labels = self._rows(labels_name(self.split), LABEL_DTYPE)
        if labels.min(initial=0) < NO_LANDMARK or labels.max(initial=0) >= max(1, self.num_classes):
            raise UserError(f"{self.file(labels_name(self.split))} has labels beyond -1 to {self.num_classes - 1}: run "
                            f"python -m shards verify {self.path}")
        return labels

    def _rows(self, name: str, dtype: np.dtype) -> np.ndarray:
        try:
            rows = read_array(self.file(name), dtype, mmap=True).view(np.ndarray)
        except ValueError as error:
            raise UserError(f"{self.file(name)} {error}: run python -m shards verify {self.path}") from None
        if len(rows) != len(self):
            raise UserError(f"{self.file(name)} has {len(rows):,} rows, dataset.json counts {len(self):,} samples: run "
                            f"python -m shards verify {self.path}")
        return rows

    @property
    def num_classes(self) -> int:
        """Number of classes of the whole dataset, whichever occur in this split."""
        return self.manifest["num_classes"]

    @cached_property
    def landmark_ids(self) -> list[str]:
        """Landmark ids as the raw data spells them; position = label. Raises UserError if their file is damaged."""
        return self._class_column("landmark_id")

    @cached_property
    def landmark_names(self) -> dict[str, str]:
        """Landmark id -> name, "" where the raw data has none. Raises as landmark_ids does."""
        return dict(zip(self.landmark_ids, self._class_column("name")))

    def _class_column(self, name: str) -> list[str]:
        rows = read_table(self.file(CLASSES), CLASSES_COLUMNS)
        if len(rows) != self.num_classes:
            raise UserError(f"{self.file(CLASSES)} has {len(rows):,} classes, dataset.json counts "
                            f"{self.num_classes:,}: run python -m shards verify {self.path}")
        return [row[CLASSES_COLUMNS.index(name)] for row in rows]

    def rejected(self) -> list[list[str]]:
        """id, split and reason of each photo that could not be packed, of all splits. Raises as landmark_ids does."""
        return read_table(self.file(REJECTED), REJECTED_COLUMNS)

    def truths(self) -> list[set[int]]:
        """All true labels of each sample, (N,): its label, several for a photo of several landmarks, or none.

        Raises UserError if the file of the several is damaged.
        """
        several = {key.encode(): set(labels) for key, labels in read_truths(self.file(truths_name(self.split))).items()}
        own = ({label} if label != NO_LANDMARK else set() for label in self.labels.tolist())
        return [several.get(key, label) for key, label in zip(self.index["key"].tolist(), own)]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes with any byte of this split's shards, index or labels."""
        names = [index_name(self.split), labels_name(self.split)]
        names += [self._shard_file(number) for number in range(self.num_shards)]
        digests = [self.manifest["files"][name]["sha256"] for name in names]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def file(self, name: str) -> Path:
        """A file of the dataset on local disk; it is not there if the dataset has none."""
        return self._folder.file(name)

    def shard(self, number: int, stop: Event = Event()) -> np.ndarray:
        """The bytes of a whole shard, uint8 (size,), read-only and mapped; fetched first if it lies elsewhere.

        It stays on local disk while the array or a view of it lives. `stop`, once set, ends the wait by a UserError.
        """
        return self._folder.shard(self.split, number, stop)

    def _shard_file(self, number: int) -> str:
        return f"{shard_name(self.split, number)}.tar"

    def view(self, i: int) -> np.ndarray:
        """The JPEG of sample i, uint8 (size,): a read-only view into the mapped tar, unchecked."""
        row = self.index[i]
        return self.shard(int(row["shard"]))[row["offset"]:row["offset"] + row["size"]]

    def checked_view(self, i: int) -> np.ndarray:
        """view(i), its crc32 compared. Raises CorruptSample if these are not the bytes that were packed."""
        data, row = self.view(i), self.index[i]
        if len(data) != row["size"] or zlib.crc32(data.data) != row["crc32"]:
            shard = shard_name(self.split, row["shard"])
            raise CorruptSample(f"sample {key_text(row['key'])} of split {self.split} is damaged: its bytes "
                                f"at offset {row['offset']} of {shard}.tar are not those that were packed")
        return data

    def read(self, i: int) -> bytes:
        """The JPEG of sample i, checked as in checked_view."""
        return self.checked_view(i).tobytes()


def splits(path: str | Path, cache: CacheConfig = CacheConfig()) -> list[str]:
    """Names of the splits of the dataset in folder or URL `path`. Raises UserError as Dataset does."""
    return list(open_folder(path, cache).manifest["splits"])
