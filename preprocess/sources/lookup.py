"""Find names in the indexes of many archives at once, in one sorted, memory-mapped table of all their rows."""
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from arcshard.files import whole_file
from preprocess.sources.index import ROW, digest
from preprocess.sources.names import name_hash

By = Literal["base", "name"]
ROWS_A_SLICE = 1 << 19  # rows sorted at a time: at most 20 MB, and as much again


def sorted_rows(indexes: Sequence[Path], by: By) -> np.ndarray:
    """Memory-mapped ROW of all the indexes, sorted by the hash `by`; rows of one hash in the order of the archives.

    The table is a file beside the indexes, made if missing. Memory does not grow with the number of rows.
    """
    path = indexes[0].with_name(f"by-{by}-{digest(' '.join(index.name for index in indexes))}.npy")
    if not path.exists():
        _write(path, indexes, by)
        for stale in set(path.parent.glob(f"by-{by}-*.npy")) - {path}:
            stale.unlink(missing_ok=True)
    return np.load(path, mmap_mode="r").view(np.ndarray)


def look_up(rows: np.ndarray, by: By, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which of the names are there, int64 (M,), and the first row of each, ROW (M,); rows: what sorted_rows gave."""
    hashes = np.fromiter(map(name_hash, names), np.uint64, len(names))
    at = np.searchsorted(rows[by], hashes)
    there = np.flatnonzero(at < len(rows))
    there = there[rows[by][at[there]] == hashes[there]]
    return there, rows[at[there]]


def _write(path: Path, indexes: Sequence[Path], by: By) -> None:
    total = sum(len(np.load(index, mmap_mode="r")) for index in indexes)
    bits = 1 + (total // ROWS_A_SLICE).bit_length()  # their hashes' first bits cut the rows into equal slices
    header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (total,)}
    with whole_file(path) as f:
        np.lib.format.write_array_header_1_0(f, header)
        for first_bits in range(1 << bits):
            rows = np.concatenate([_slice(index, number, by, first_bits, bits) for number, index in enumerate(indexes)])
            f.write(rows[np.argsort(rows[by], kind="stable")].tobytes())


def _slice(index: Path, number: int, by: By, first_bits: int, bits: int) -> np.ndarray:
    """The rows of one index whose hash begins with those bits, with the archive's number."""
    rows = np.load(index, mmap_mode="r")
    chosen = rows[rows[by] >> np.uint64(64 - bits) == first_bits].view(np.ndarray)
    chosen["archive"] = number
    return chosen
