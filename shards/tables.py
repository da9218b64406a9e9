"""Index, labels and truths of a split as they are on disk, sound or not."""
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcshard.csv_table import read_table
from shards.format import INDEX_DTYPE, LABEL_DTYPE, MAX_KEY, TRUTHS_COLUMNS, index_name, labels_name
from shards.rows import CHUNK, RowFile, open_rows

TRUTHS = re.compile(r"\d{1,9}( \d{1,9})+")
MAX_REPEATED = 1000  # a damaged index may hold the same key millions of times
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, 2^64 divided by the golden ratio: Knuth, TAOCP 6.4
SHIFT = np.uint64(29)


@dataclass(frozen=True)
class Tables:
    """What one pass over both files of a split gave; what is missing or cannot be read is None."""

    split: str
    index: RowFile | None
    labels: np.ndarray | None
    """(rows,) int32."""
    bounds: np.ndarray | None
    """(shards + 1,) int64: the rows of shard s are bounds[s] to bounds[s + 1]; None if they are not in order."""
    key_hashes: np.ndarray
    """(rows,) uint64."""
    faults: list[str]
    """A sentence for each file that is there but not sound."""

    def rows_of(self, shard: int) -> range:
        """The rows of a shard; none if they are not in order."""
        return range(0) if self.bounds is None else range(*self.bounds[shard:shard + 2].tolist())

    def key(self, row: int) -> bytes:
        """The key in a row of the index."""
        assert self.index is not None
        return self.index.read(row, 1)["key"].item()

    def labels_by_key(self, keys: set[str]) -> dict[str, int]:
        """Labels of those of the `keys` that the split has."""
        assert self.index is not None and self.labels is not None
        wanted, labels = [key.encode() for key in keys], {}
        for first, rows in zip(range(0, self.index.rows, CHUNK), self.index.chunks()):
            for i in np.flatnonzero(np.isin(rows["key"], wanted)).tolist():
                labels[rows["key"][i].decode()] = int(self.labels[first + i])
        return labels


def read_tables(folder: Path, split: str, shards: int) -> Tables:
    """Index and labels of a split of that many shards; a missing file is no fault."""
    faults: list[str] = []

    def open_table(name: str, dtype: np.dtype) -> RowFile | None:
        try:
            return open_rows(folder / name, dtype) if (folder / name).is_file() else None
        except ValueError as error:
            faults.append(f"{name}: {error}")
            return None

    labels, index = open_table(labels_name(split), LABEL_DTYPE), open_table(index_name(split), INDEX_DTYPE)
    hashes, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for rows in index.chunks() if index else ():
        hashes.append(hash_keys(rows["key"]))
        numbers.append(rows["shard"].copy())
    bounds = _bounds(np.concatenate(numbers), shards)
    if index and bounds is None:
        faults.append(f"{index.path.name}: its shards are not 0 to {shards - 1} in order")
    return Tables(split, index, labels.read(0, labels.rows) if labels else None, bounds, np.concatenate(hashes), faults)


def labels_of(tables: list[Tables], split: str) -> np.ndarray | None:
    """A split's labels, int32 (rows,): empty if there is no such split, None if they could not be read."""
    return next((table.labels for table in tables if table.split == split), np.empty(0, np.int32))


def repeated_keys(tables: list[Tables]) -> Iterator[tuple[bytes, Tables, int]]:
    """Samples whose key is not their own alone, up to MAX_REPEATED a split: the key, its split's tables, its row.

    Takes 8 bytes a key, since only keys whose hash occurs twice are read again.
    """
    suspects = repeated([table.key_hashes for table in tables])
    places: dict[bytes, list[tuple[Tables, int]]] = {}
    for table in tables if len(suspects) else []:
        for row in np.flatnonzero(np.isin(table.key_hashes, suspects))[:MAX_REPEATED].tolist():
            places.setdefault(table.key(row), []).append((table, row))
    return ((key, *place) for key, of_key in places.items() if len(of_key) > 1 for place in of_key)


def hash_keys(keys: np.ndarray) -> np.ndarray:
    """uint64 (n,) of keys S96 (n,): equal keys have equal hashes, others nearly never."""
    words = np.ascontiguousarray(keys).view("<u8").reshape(len(keys), MAX_KEY // 8)
    hashes = np.zeros(len(keys), np.uint64)
    for word in words.T:
        hashes = (hashes ^ word) * MULTIPLIER
        hashes ^= hashes >> SHIFT
    return hashes


def repeated(hashes: list[np.ndarray]) -> np.ndarray:
    """The hashes, uint64 and sorted, that occur more than once in all arrays together."""
    in_order = np.sort(np.concatenate([np.empty(0, np.uint64), *hashes]))
    return np.unique(in_order[1:][in_order[1:] == in_order[:-1]])


def read_truths(path: Path) -> dict[str, list[int]]:
    """Key -> all true labels, two or more, the sample's own first, of a SPLIT.truths.csv; empty without the file.

    Raises ValueError for a file that is none.
    """
    truths: dict[str, list[int]] = {}
    for key, labels in read_table(path, TRUTHS_COLUMNS) if path.is_file() else []:
        if key in truths:
            raise ValueError(f"has sample {key!r} twice")
        if not TRUTHS.fullmatch(labels):
            raise ValueError(f"sample {key!r} has {labels!r}, not several labels separated by spaces")
        truths[key] = [int(label) for label in labels.split(" ")]
    return truths


def _bounds(numbers: np.ndarray, shards: int) -> np.ndarray | None:
    """Where each shard's rows begin, and the end; None if the shards are not 0, 1, 2, … in order."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    if len(starts) != shards or not np.array_equal(numbers[starts], np.arange(shards)):
        return None
    return np.concatenate([starts, [len(numbers)]])
