"""A split's index and labels as they are on disk, sound or not."""
import csv
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from arcshard.files import whole_file, write_text
from shards.format import INDEX_DTYPE, MAX_KEY, TRUTHS_COLUMNS, index_name, labels_name

# Read and write the small CSV files of a dataset, which hold exactly the columns that format.py names.


def read_table(path: Path, columns: list[str]) -> list[list[str]]:
    """Rows under the header, each as long as `columns`. Raises ValueError for any other file."""
    try:
        text = path.read_bytes().decode()
        header, *rows = [*csv.reader(io.StringIO(text, newline=""))] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot be read ({error})") from None
    if header != columns or any(len(row) != len(columns) for row in rows):
        raise ValueError(f"its columns must be {', '.join(columns)}")
    return rows


def write_table(path: Path, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Write a header and rows; the file appears whole."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_text(path, text.getvalue())


# Read and write .npy files of one dimension a piece at a time: memory does not grow with their length.

class RowFile(NamedTuple):
    """An .npy file of one dimension."""

    path: Path
    dtype: np.dtype
    start: int
    """Offset of the first row, bytes."""
    rows: int

    def read(self, first: int, count: int) -> np.ndarray:
        """Up to `count` rows from number `first` on, copied."""
        offset = self.start + first * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, min(count, self.rows - first), offset=offset)

    def chunks(self, count: int = 2**16) -> Iterator[np.ndarray]:
        """All rows, `count` at a time."""
        return (self.read(first, count) for first in range(0, self.rows, count))


def open_rows(path: Path, dtype: np.dtype) -> RowFile:
    """A file that must hold rows of `dtype` and nothing else. Raises ValueError, whatever is wrong with it."""
    try:
        with open(path, "rb") as f:
            np.lib.format.read_magic(f)
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError, SyntaxError, tokenize.TokenError) as error:  # numpy's header parser
        raise ValueError(f"cannot be read ({error})") from None
    if array.dtype != dtype or array.ndim != 1:
        raise ValueError(f"must be a row of {dtype}, not {array.dtype} of shape {array.shape}")
    size = path.stat().st_size
    if (end := array.offset + array.nbytes) != size:
        raise ValueError(f"has {size} bytes, its {len(array)} rows end at {end}")
    return RowFile(path, dtype, array.offset, len(array))


@contextmanager
def new_rows(path: Path, dtype: np.dtype) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a file of rows that appears whole when the block ends; call what this yields with each piece."""
    written = 0

    def append(rows: np.ndarray) -> None:
        nonlocal written
        f.write(rows.astype(dtype, copy=False).tobytes())
        written += len(rows)

    with whole_file(path) as f:
        start = _write_header(f, dtype, 0)
        yield append
        f.seek(0)
        assert _write_header(f, dtype, written) == start, "numpy pads headers so that rows can be appended"


def _write_header(f: BinaryIO, dtype: np.dtype, rows: int) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
    np.lib.format.write_array_header_1_0(f, header)
    return f.tell()


# Find the keys that name several samples, among many millions, at 8 bytes a key.

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, 2^64 divided by the golden ratio: Knuth, TAOCP 6.4
SHIFT = np.uint64(29)


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


# SPLIT.truths.csv: the samples that have several true labels, as some test photos show several landmarks.

LABELS = re.compile(r"\d{1,9}( \d{1,9})+")


def read_truths(path: Path) -> dict[str, list[int]]:
    """Key -> all true labels, two or more, the sample's own first; empty without the file.

    Raises ValueError for a file that is none.
    """
    if not path.is_file():
        return {}
    truths: dict[str, list[int]] = {}
    for key, labels in read_table(path, TRUTHS_COLUMNS):
        if key in truths:
            raise ValueError(f"it has sample {key} twice")
        if not LABELS.fullmatch(labels):
            raise ValueError(f"sample {key} must have several labels, separated by spaces, not {labels!r}")
        truths[key] = [int(label) for label in labels.split(" ")]
    return truths


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
