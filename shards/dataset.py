"""Read one split of a dataset through memory maps."""
import hashlib
import json
import mmap
import os
import zlib
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from arcshard.console import UserError
from shards.csv_table import read_table
from shards.format import CLASSES, CLASSES_COLUMNS, NO_LANDMARK, index_name, labels_name, shard_name, truths_name
from shards.manifest import read_manifest
from shards.truths import read_truths

# A Python mmap keeps a file descriptor (until 3.13), and a process often has only 1024 of them.
MAX_OPEN_SHARDS = 256


class CorruptSample(UserError):
    """A sample whose bytes are not those that were packed; the message names split, shard, key and offset."""


class Dataset:
    """One split of a packed dataset, read-only. Opening reads dataset.json alone; the rest is mapped on use.

    Can be pickled (it travels as path and split) and used from several threads at once. Raises UserError for
    a path that is no dataset and for a split that it does not have.
    """

    def __init__(self, path: str | Path, split: str = "train"):
        self.path, self.split = Path(path), split
        self.manifest = read_manifest(path)
        known = self.manifest["splits"]
        if split not in known:
            raise UserError(f"{path} has no split {split!r}: choose one of {', '.join(known)}")
        self._map = lru_cache(MAX_OPEN_SHARDS)(partial(_map_shard, self.path, split))

    def __len__(self) -> int:
        return self.manifest["splits"][self.split]["samples"]

    def __reduce__(self) -> tuple:
        return Dataset, (self.path, self.split)

    @cached_property
    def index(self) -> np.ndarray:
        """Memory-mapped rows (N,) of format.INDEX_DTYPE: shard, offset, size, width, height, crc32, key."""
        return np.load(self.path / index_name(self.split), mmap_mode="r").view(np.ndarray)

    @cached_property
    def labels(self) -> np.ndarray:
        """Memory-mapped int32 (N,): 0 … num_classes - 1, or -1 for no landmark."""
        return np.load(self.path / labels_name(self.split), mmap_mode="r").view(np.ndarray)

    @property
    def num_classes(self) -> int:
        """Number of classes of the whole dataset, whichever occur in this split."""
        return self.manifest["num_classes"]

    @cached_property
    def landmark_ids(self) -> list[str]:
        """Landmark ids as the raw data spells them; position = label. Raises UserError if their file is damaged."""
        path = self.path / CLASSES
        try:
            rows = read_table(path, CLASSES_COLUMNS)
            if len(rows) != self.num_classes:
                raise ValueError(f"{len(rows):,} classes, not {self.num_classes:,}")
        except (ValueError, FileNotFoundError) as error:
            raise _damaged(path, error) from None
        return [row[CLASSES_COLUMNS.index("landmark_id")] for row in rows]

    def truths(self) -> list[set[int]]:
        """All true labels of each sample, (N,): its label, several for a photo of several landmarks, or none.

        Raises UserError if the file of the several is damaged.
        """
        path = self.path / truths_name(self.split)
        try:
            several = {key.encode(): set(labels) for key, labels in read_truths(path).items()}
        except ValueError as error:
            raise _damaged(path, error) from None
        own = ({label} if label != NO_LANDMARK else set() for label in self.labels.tolist())
        return [several.get(key, label) for key, label in zip(self.index["key"].tolist(), own)]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest that changes with any byte of this split's shards, index or labels."""
        names = [index_name(self.split), labels_name(self.split)]
        shards = self.manifest["splits"][self.split]["shards"]
        names += [f"{shard_name(self.split, number)}.tar" for number in range(shards)]
        digests = [self.manifest["files"][name]["sha256"] for name in names]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def view(self, i: int) -> np.ndarray:
        """The JPEG of sample i, uint8 (size,): a read-only view into the mapped tar, unchecked."""
        row = self.index[i]
        return self._map(int(row["shard"]))[row["offset"]:row["offset"] + row["size"]]

    def checked_view(self, i: int) -> np.ndarray:
        """view(i), its crc32 compared. Raises CorruptSample if these are not the bytes that were packed."""
        data, row = self.view(i), self.index[i]
        if len(data) != row["size"] or zlib.crc32(data.data) != row["crc32"]:
            shard = shard_name(self.split, row["shard"])
            raise CorruptSample(f"sample {row['key'].decode()} of split {self.split} is damaged: its bytes "
                                f"at offset {row['offset']} of {shard}.tar are not those that were packed")
        return data

    def read(self, i: int) -> bytes:
        """The JPEG of sample i, checked as in checked_view."""
        return self.checked_view(i).tobytes()


def _damaged(path: Path, why: Exception) -> UserError:
    return UserError(f"{path} is damaged ({why}): run python -m shards verify {path.parent}")


def splits(path: str | Path) -> list[str]:
    """Names of the splits of the dataset in folder `path`. Raises UserError as Dataset does."""
    return list(read_manifest(path)["splits"])


def _map_shard(folder: Path, split: str, number: int) -> np.ndarray:
    with open(folder / f"{shard_name(split, number)}.tar", "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:  # mmap refuses it; an empty view makes read() name the sample
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
