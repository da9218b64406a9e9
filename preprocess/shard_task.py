"""Pack one shard: an independent, deterministic task that leaves a finished folder or nothing.

WORK/train-000012/ holds shard.tar, shard.idx, rows.npy (index rows), labels.npy and part.json (number of
samples, rejected photos, size and sha256 of tar and idx). It takes its name in one rename when all of it is
on disk.
"""
import errno
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcshard.files import sha256, whole_file, write_text
from preprocess.normal_form import Rejected, normalise
from preprocess.photo_folder import read_photo
from shards.format import shard_name
from shards.idx import idx_text
from shards.writer import Sample, write_tar

TAR, IDX, ROWS, LABELS, PART = "shard.tar", "shard.idx", "rows.npy", "labels.npy", "part.json"
SCRATCH = "scratch-"  # prefix of folders that a killed task leaves behind


@dataclass(frozen=True)
class ShardTask:
    """What one shard is made of: photo ids, their labels, and the options that decide its bytes."""

    split: str
    number: int
    ids: list[str]
    labels: list[int]
    images: Path
    work: Path
    short_side: int | None
    quality: int

    @property
    def folder(self) -> Path:
        """Where the finished shard lies."""
        return self.work / shard_name(self.split, self.number)


def pack_shard(task: ShardTask) -> int:
    """Pack the task's photos and return how many there were, rejects included."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=task.work) as scratch:
        folder = Path(scratch)
        rejected: dict[str, str] = {}
        with whole_file(folder / TAR) as f:
            rows, labels = write_tar(f, _samples(task, rejected))
        _write_part(folder, rows, labels, rejected)
        _take_name(folder, task.folder)
    return len(task.ids)


def file_entry(path: Path) -> dict[str, int | str]:
    """What dataset.json says of a file: its size in bytes and its sha256."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def _samples(task: ShardTask, rejected: dict[str, str]) -> Iterator[Sample]:
    """The photos that can be packed; the reasons of the others go to `rejected`."""
    for key, label in zip(task.ids, task.labels):
        try:
            photo = normalise(read_photo(task.images, key), task.short_side, task.quality)
            yield Sample(key, label, *photo)
        except Rejected as reason:
            rejected[key] = str(reason)


def _write_part(folder: Path, rows: np.ndarray, labels: np.ndarray, rejected: dict[str, str]) -> None:
    write_text(folder / IDX, idx_text(rows, labels))
    for name, array in ((ROWS, rows), (LABELS, labels)):
        with whole_file(folder / name) as f:
            np.save(f, array)
    part = {"samples": len(rows), "rejected": rejected,
            "tar": file_entry(folder / TAR), "idx": file_entry(folder / IDX)}
    write_text(folder / PART, json.dumps(part))


def _take_name(folder: Path, name: Path) -> None:
    try:
        os.rename(folder, name)
    except OSError as error:
        # A worker that outlived a killed packer may have been first; the same task gives the same bytes.
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
