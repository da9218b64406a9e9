"""Write what follows from the tars of a split alone: its index, labels and .idx. For repair and adopt."""
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from arcshard.console import progress
from arcshard.files import write_text
from arcshard.workers import end_with_parent
from shards.content import CLS, ShardContent, read_shard
from shards.entry import FileEntry, file_entry
from shards.format import INDEX_DTYPE, LABEL_DTYPE, index_name, labels_name, shard_name
from shards.rows import new_rows
from shards.tables import Tables

QUALITY = 90  # of JPEGs that predict.py must encode; what the photos in the tars were encoded with is not known

Judge = Callable[[int, ShardContent], list[str]]
"""(number of a shard, what its tar holds) -> its faults; [] if it is sound."""


@dataclass(frozen=True)
class RebuiltSplit:
    """What the tars of a split gave."""

    split: str
    samples: int
    """Of the sound tars."""
    shards: int
    """Sound or not."""
    entries: dict[str, FileEntry]
    """Of the sound tars and what was made of them, by name: no index and labels if a tar is damaged."""
    faults: dict[int, list[str]]
    """Of each damaged tar, by its number."""

    @property
    def counts(self) -> dict[str, int]:
        """The split in dataset.json."""
        return {"samples": self.samples, "shards": self.shards}


def rebuild_split(split: str, tars: list[Path], folder: Path, judge: Judge, *, label_from: str, decode: bool,
                  workers: int, what: str) -> RebuiltSplit:
    """Read the tars, shards 0, 1, 2, … of `split`, and write its index, its labels and each .idx into `folder`.

    label_from: as in read_shard; only labels in .cls are written. decode: also decode each photo. workers: processes
    that read. what: the name of the progress bar. Memory does not grow with the number of shards.
    """
    samples = 0
    entries: dict[str, FileEntry] = {}
    faults: dict[int, list[str]] = {}
    tables = folder / index_name(split), folder / labels_name(split)
    with new_rows(tables[0], INDEX_DTYPE) as add_rows, new_rows(tables[1], LABEL_DTYPE) as add_labels:
        for number, content in enumerate(_read_shards(tars, decode, label_from, workers, what)):
            if of_tar := judge(number, content):
                faults[number] = of_tar
                continue
            content.rows["shard"] = number
            add_rows(content.rows)
            add_labels(content.labels)
            samples += len(content.rows)
            idx = folder / f"{shard_name(split, number)}.idx"
            write_text(idx, content.idx)
            entries |= {f"{shard_name(split, number)}.tar": content.entry, idx.name: file_entry(idx)}
    sound = () if faults else tables if label_from == CLS else tables[:1]
    for table in tables:
        if table in sound:
            entries[table.name] = file_entry(table)
        else:
            table.unlink()
    return RebuiltSplit(split, samples, len(tars), entries, faults)


def unknown_packing(how: str, tables: list[Tables]) -> dict[str, Any]:
    """`packing` in dataset.json for photos that were packed in an unknown way.

    Queries are scaled down to its short_side, so it is the largest one of all photos.
    """
    short_sides = [int(np.minimum(rows["width"], rows["height"]).max())
                   for table in tables if table.index for rows in table.index.chunks()]
    return {how: True, "short_side": max(short_sides), "quality": QUALITY}


def _read_shards(tars: list[Path], decode: bool, label_from: str, workers: int, what: str) -> Iterator[ShardContent]:
    """What each tar holds, in their order."""
    tasks = (delayed(read_shard)(tar, decode, label_from) for tar in tars)
    parallel = Parallel(workers, return_as="generator", **end_with_parent())
    return progress(parallel(tasks), total=len(tars), unit="shard", what=what)
