"""Files of rows: .npy of one dimension, read and written a piece at a time, so that memory does not grow with them.

They are not memory-mapped: mapped pages count as the process's memory, and a file that is cut meanwhile would kill it.
"""
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from arcshard.files import whole_file
from arcshard.untrusted import reason

CHUNK = 2**16  # rows


class RowFile(NamedTuple):
    """A file of rows on disk."""

    path: Path
    dtype: np.dtype
    start: int
    """Offset of the first row, bytes."""
    rows: int

    def read(self, first: int, count: int) -> np.ndarray:
        """Up to `count` rows from number `first` on, copied."""
        offset = self.start + first * self.dtype.itemsize
        return np.fromfile(self.path, self.dtype, min(count, self.rows - first), offset=offset)

    def chunks(self) -> Iterator[np.ndarray]:
        """All rows, CHUNK at a time."""
        return (self.read(first, CHUNK) for first in range(0, self.rows, CHUNK))


def open_rows(path: Path, dtype: np.dtype) -> RowFile:
    """A file that must hold rows of `dtype` and nothing else. Raises ValueError, whatever is wrong with it."""
    try:
        with open(path, "rb") as f:
            rows, start = _read_header(f, dtype), f.tell()
            size = f.seek(0, os.SEEK_END)
    except OSError as error:
        raise ValueError(f"cannot be read ({error})") from None
    if (end := start + rows * dtype.itemsize) != size:
        raise ValueError(f"has {size} bytes, its {rows} rows end at {end}")
    return RowFile(path, dtype, start, rows)


def stream_rows(f: BinaryIO, dtype: np.dtype) -> Iterator[np.ndarray]:
    """All rows of an open file, CHUNK at a time; read-only. Raises ValueError if it does not hold rows of `dtype`."""
    rows = _read_header(f, dtype)
    for first in range(0, rows, CHUNK):
        count = min(CHUNK, rows - first)
        yield np.frombuffer(f.read(count * dtype.itemsize), dtype, count)


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


def _read_header(f: BinaryIO, dtype: np.dtype) -> int:
    """Number of rows. Raises ValueError unless they are of `dtype`."""
    try:
        if (version := np.lib.format.read_magic(f)) != (1, 0):
            raise ValueError(f"the .npy format {version} is not (1, 0)")
        shape, _, found = np.lib.format.read_array_header_1_0(f)
    except Exception as error:  # numpy's parser of headers raises nearly any type
        raise ValueError(f"cannot be read ({reason(error)})") from None
    if found != dtype or len(shape) != 1:
        raise ValueError(f"holds {found} of shape {shape}, not a row of {dtype}")
    return shape[0]


def _write_header(f: BinaryIO, dtype: np.dtype, rows: int) -> int:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows,)}
    np.lib.format.write_array_header_1_0(f, header)
    return f.tell()
