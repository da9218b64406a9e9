"""Read and write .npy files of one dimension a piece at a time: memory does not grow with their length."""
import tokenize
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from arcshard.files import whole_file


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
