"""A store in the making: runs of rows, each in a file of its own that outlives a kill."""
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.lib.format import write_array
from numpy.typing import NDArray

from arcshard.files import sync_folder, whole_file, write_text
from retrieval.store import Made

ROWS = 4096  # a part; a kill costs each rank less than one


class Parts:
    """The parts of a store of `rows` rows, in a folder inside the store's. Several processes may write different ones.

    dtype: float32 or float16, that of the parts' numbers. part_rows: rows of each, the last fewer.
    """

    def __init__(self, store: Path, made: Made, rows: int, dtype: str, part_rows: int = ROWS):
        self.folder, self.rows, self.dtype, self.part_rows = store / "parts", rows, dtype, part_rows
        self._plan = json.dumps({**asdict(made), "rows": rows, "dtype": dtype, "part": part_rows}, indent=2) + "\n"

    def begin(self) -> None:
        """Make the folder; parts of other embeddings that lie there go. One process calls it before all others."""
        plan = self.folder / "plan.json"
        if not plan.is_file() or plan.read_text() != self._plan:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            sync_folder(self.folder.parent)
            write_text(plan, self._plan)

    def missing(self) -> list[int]:
        """Numbers of the parts yet to be written, ascending."""
        return [number for number in range(-(-self.rows // self.part_rows)) if not self._path(number).is_file()]

    def rows_of(self, first: int, last: int) -> range:
        """Rows of the parts from `first` to `last`."""
        return range(first * self.part_rows, min((last + 1) * self.part_rows, self.rows))

    def write(self, number: int, vectors: NDArray[np.float32]) -> None:
        with whole_file(self._path(number)) as f:
            write_array(f, vectors.astype(self.dtype), allow_pickle=False)

    def blocks(self) -> Iterator[NDArray[np.floating]]:
        """All parts in their order; each read when its turn comes."""
        return (np.load(self._path(number)) for number in range(-(-self.rows // self.part_rows)))

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"


def in_parts(batches: Iterator[NDArray[np.float32]], rows: int) -> Iterator[NDArray[np.float32]]:
    """The same rows, `rows` at a time, the last fewer."""
    held: list[NDArray[np.float32]] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) >= rows:
            joined = np.concatenate(held)
            yield joined[:rows]
            held = [joined[rows:]]
    rest = np.concatenate(held) if held else np.zeros((0, 0), np.float32)
    if len(rest):
        yield rest


def runs(numbers: list[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers, of ascending ones."""
    breaks = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    return [(numbers[a], numbers[b - 1]) for a, b in zip([0, *breaks], [*breaks, len(numbers)])] if numbers else []


def share(numbers: list[int], rank: int, size: int) -> list[int]:
    """The rank-th of `size` contiguous shares, whose lengths differ by one at most."""
    return numbers[rank * len(numbers) // size:(rank + 1) * len(numbers) // size]
