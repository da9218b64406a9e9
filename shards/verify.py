"""Re-read every byte of a dataset and name each fault."""
import csv
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from arcshard.console import progress
from arcshard.files import sha256
from shards.format import CLASSES, INDEX_DTYPE, MANIFEST, NO_LANDMARK, index_name, labels_name, shard_name
from shards.idx import idx_text
from shards.manifest import read_manifest
from shards.verify_tar import tar_faults


def verify(path: str | Path) -> list[str]:
    """One sentence for each fault of the dataset in folder `path`, the file's name first; [] if it is whole.

    Raises UserError for a folder that is no dataset.
    """
    path = Path(path)
    manifest = read_manifest(path)
    faults = [*_folder_faults(path, manifest), *_class_faults(path, manifest)]
    for split, counts in manifest["splits"].items():
        faults += _split_faults(path, split, counts, manifest["num_classes"])
    return faults


def _folder_faults(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Files that are missing, too many, or not those that were packed."""
    files = manifest["files"]
    for name in sorted({entry.name for entry in path.iterdir()} - {MANIFEST, *files}):
        yield f"{name}: an extra file that {MANIFEST} does not list"
    for name, entry in progress(files.items(), unit="file", what="verify files"):
        if not (path / name).is_file():
            yield f"{name}: missing"
        elif (size := (path / name).stat().st_size) != entry["size"]:
            yield f"{name}: has {size} bytes, was packed with {entry['size']}"
        elif sha256(path / name) != entry["sha256"]:
            yield f"{name}: its sha256 is not the one it was packed with"


def _class_faults(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    if (path / CLASSES).is_file():
        with open(path / CLASSES, newline="", encoding="utf-8", errors="replace") as f:
            rows = sum(1 for _ in csv.DictReader(f))
        if rows != manifest["num_classes"]:
            yield f"{CLASSES}: has {rows} classes, {MANIFEST} counts {manifest['num_classes']}"


def _split_faults(path: Path, split: str, counts: dict[str, int], num_classes: int) -> Iterator[str]:
    rows, unreadable_rows = _load(path / index_name(split), INDEX_DTYPE)
    labels, unreadable_labels = _load(path / labels_name(split), np.dtype("<i4"))
    yield from unreadable_rows + unreadable_labels
    if rows is None or labels is None:
        return
    yield from _count_faults(split, rows, labels, counts, num_classes)
    shards = rows["shard"][:len(labels)]
    order = np.argsort(shards, kind="stable")
    starts = np.searchsorted(shards[order], range(counts["shards"] + 1))
    for number in progress(range(counts["shards"]), unit="shard", what=f"verify {split}"):
        own = order[starts[number]:starts[number + 1]]
        yield from _shard_faults(path / shard_name(split, number), rows[own], labels[own])


def _load(path: Path, dtype: np.dtype) -> tuple[np.ndarray | None, list[str]]:
    """The memory-mapped array, or None and why not; a missing file has been named before."""
    if not path.is_file():
        return None, []
    try:
        array = np.load(path, mmap_mode="r").view(np.ndarray)
    except (ValueError, EOFError, OSError, SyntaxError, tokenize.TokenError) as error:  # numpy's header parser
        return None, [f"{path.name}: cannot be read ({error})"]
    if array.dtype != dtype or array.ndim != 1:
        return None, [f"{path.name}: must be a row of {dtype}, not {array.dtype} of shape {array.shape}"]
    return array, []


def _count_faults(split: str, rows: np.ndarray, labels: np.ndarray, counts: dict[str, int],
                  num_classes: int) -> Iterator[str]:
    for name, array in ((index_name(split), rows), (labels_name(split), labels)):
        if len(array) != counts["samples"]:
            yield f"{name}: has {len(array)} rows, {MANIFEST} counts {counts['samples']} samples"
    shards = rows["shard"]
    if not np.array_equal(np.unique(shards), np.arange(counts["shards"])) or (np.diff(shards) < 0).any():
        yield f"{index_name(split)}: its shards are not 0 to {counts['shards'] - 1} in order"
    wrong = (labels < NO_LANDMARK) | (labels >= num_classes)
    if wrong.any():
        yield f"{labels_name(split)}: {wrong.sum()} labels are not -1 to {num_classes - 1}"


def _shard_faults(stem: Path, rows: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    tar, idx = stem.with_name(f"{stem.name}.tar"), stem.with_name(f"{stem.name}.idx")
    if tar.is_file():
        yield from (f"{tar.name}: {fault}" for fault in tar_faults(tar, rows, labels))
    if idx.is_file() and idx.read_bytes() != idx_text(rows, labels).encode():
        yield f"{idx.name}: stale, it is not the index of this tar"
