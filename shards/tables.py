"""A split's index and labels as they are on disk, sound or not."""
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.format import INDEX_DTYPE, index_name, labels_name
from shards.keys import hash_keys, repeated
from shards.npy import RowFile, open_rows

CHUNK = 2**16  # rows
MAX_REPEATED = 1000  # a damaged index may hold the same key millions of times


@dataclass
class Tables:
    """What a pass over both files found; what could not be read is None and a fault."""

    split: str
    index: RowFile | None = None
    labels: np.ndarray | None = None
    """(rows,) int32."""
    bounds: np.ndarray | None = None
    """(shards + 1,) int64: the rows of shard s are bounds[s] to bounds[s + 1]; None if they are not in order."""
    key_hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """(rows,) uint64."""
    faults: list[str] = field(default_factory=list)

    def rows_of(self, shard: int) -> tuple[int, int] | None:
        """First row of a shard, and how many there are."""
        if self.bounds is None or shard + 1 >= len(self.bounds):
            return None
        return int(self.bounds[shard]), int(self.bounds[shard + 1] - self.bounds[shard])

    def labels_by_key(self, keys: set[str]) -> dict[str, int]:
        """Labels of those of the `keys` that the split has."""
        assert self.index is not None and self.labels is not None
        found: dict[str, int] = {}
        for first, rows in zip(range(0, self.index.rows, CHUNK), self.index.chunks(CHUNK)):
            wanted = np.flatnonzero(np.isin(rows["key"], [key.encode() for key in keys]))
            found |= {rows["key"][i].decode(): int(self.labels[first + i]) for i in wanted.tolist()}
        return found


def read_tables(folder: Path, split: str, shards: int) -> Tables:
    """Index and labels of a split of that many shards; a missing file is no fault."""
    tables = Tables(split)
    if labels := _open(folder / labels_name(split), np.dtype("<i4"), tables.faults):
        tables.labels = labels.read(0, labels.rows)
    tables.index = _open(folder / index_name(split), INDEX_DTYPE, tables.faults)
    if tables.index:
        _scan(tables, tables.index, shards)
    return tables


def labels_of(tables: list[Tables], split: str) -> np.ndarray | None:
    """A split's labels, int32 (rows,): empty if there is no such split, None if they could not be read."""
    found = [table.labels for table in tables if table.split == split]
    return found[0] if found else np.empty(0, np.int32)


def repeated_keys(tables: list[Tables]) -> Iterator[tuple[bytes, Tables, int]]:
    """Samples whose key is not their own alone, up to MAX_REPEATED a split: the key, its split's tables, its row."""
    suspects = repeated([table.key_hashes for table in tables])
    found: dict[bytes, list[tuple[Tables, int]]] = {}
    for table in tables if len(suspects) else []:
        for row in np.flatnonzero(np.isin(table.key_hashes, suspects))[:MAX_REPEATED].tolist():
            assert table.index is not None
            found.setdefault(bytes(table.index.read(row, 1)["key"][0]), []).append((table, row))
    return ((key, *place) for key, places in found.items() if len(places) > 1 for place in places)


def _open(path: Path, dtype: np.dtype, faults: list[str]) -> RowFile | None:
    if not path.is_file():
        return None
    try:
        return open_rows(path, dtype)
    except ValueError as error:
        faults.append(f"{path.name}: {error}")
        return None


def _scan(tables: Tables, index: RowFile, shards: int) -> None:
    """Fill bounds and key_hashes in one pass."""
    hashes, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
    for rows in index.chunks(CHUNK):
        hashes.append(hash_keys(rows["key"]))
        numbers.append(rows["shard"].copy())
    tables.key_hashes = np.concatenate(hashes)
    tables.bounds = _bounds(np.concatenate(numbers), shards)
    if tables.bounds is None:
        tables.faults.append(f"{index.path.name}: its shards are not 0 to {shards - 1} in order")


def _bounds(numbers: np.ndarray, shards: int) -> np.ndarray | None:
    """Where each shard's rows begin, and the end; None if the shards are not 0, 1, 2, … in order."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    if len(starts) != shards or not np.array_equal(numbers[starts], np.arange(shards)):
        return None
    return np.concatenate([starts, [len(numbers)]])
