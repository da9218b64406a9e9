"""Re-read every byte of a dataset and name each fault.

Each tar is an independent task: it is read once, and what it holds is compared with its rows of index and labels, with
its .idx and with its sha256. Memory does not grow with the number of photos, but for about 45 bytes each while the
tables are checked (4.1 million: 190 MB).
"""
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from arcshard.console import progress
from arcshard.workers import end_with_parent
from shards.compare import ShardCheck, shard_faults
from shards.content import CLS
from shards.entry import entry_fault, file_entry
from shards.format import (
    CLASSES,
    LABEL_DTYPE,
    MANIFEST,
    REJECTED,
    SHARD_KINDS,
    index_name,
    labels_name,
    shard_name,
    split_files,
    truths_name,
)
from shards.manifest import label_source, read_manifest
from shards.table_faults import class_faults, count_faults, key_faults, label_faults, truth_faults
from shards.tables import Tables, labels_of, read_tables


def verify(path: str | Path, workers: int = 1) -> list[str]:
    """One sentence for each fault of the dataset in folder `path`, the file's name first; [] if it is whole.

    The order depends on the dataset alone, not on `workers` (processes). Raises UserError for a folder that is no
    dataset.
    """
    path = Path(path)
    manifest = read_manifest(path)
    changed = _changed(path, manifest)
    tables = [read_tables(path, split, counts["shards"]) for split, counts in manifest["splits"].items()]
    faults = [*_listing_faults(path, manifest), *_table_faults(path, manifest, tables, changed.keys())]
    checks = [check for table in tables for check in _checks(path, table, manifest)]
    with progress(total=len(checks), unit="shard", what="verify") as bar:
        parallel = Parallel(workers, return_as="generator", **end_with_parent())
        for of_shard in parallel(delayed(shard_faults)(check) for check in checks):
            faults += of_shard
            bar.update()
    named = {fault.partition(":")[0] for fault in faults}
    return faults + [f"{name}: {fault}" for name, fault in changed.items() if name not in named]


def _changed(path: Path, manifest: dict[str, Any]) -> dict[str, str]:
    """The files, shards apart, whose size or sha256 is not the one in dataset.json, and what differs."""
    names = [name for name in sorted(manifest["files"]) if not name.endswith(SHARD_KINDS) and (path / name).is_file()]
    faults = {name: entry_fault(file_entry(path / name), manifest["files"][name]) for name in names}
    return {name: fault for name, fault in faults.items() if fault}


def _listing_faults(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Files that are missing, too many, or not listed."""
    files, splits = manifest["files"], manifest["splits"]
    needed = {CLASSES, REJECTED}
    for split, counts in splits.items():
        needed |= {*split_files(split, min(counts["shards"], len(files)))}  # the count may be damaged, and huge
    for name in sorted({entry.name for entry in path.iterdir()} - {MANIFEST, *files}):
        yield f"{name}: an extra file that {MANIFEST} does not list"
    for name in sorted(needed - files.keys()):
        yield f"{MANIFEST}: lists no {name}, which its splits need"
    for name in sorted(files.keys() - needed - {truths_name(split) for split in splits}):
        yield f"{MANIFEST}: lists {name}, which its splits do not have"
    for name in sorted(files):
        if not (path / name).is_file():
            yield f"{name}: missing"


def _table_faults(path: Path, manifest: dict[str, Any], tables: list[Tables], changed: Set[str]) -> Iterator[str]:
    """What the files that are no shards say wrongly, but for what follows from one that was `changed`."""
    num_classes = manifest["num_classes"]
    for table in tables:
        split = table.split
        yield from table.faults
        yield from count_faults(table, manifest["splits"][split]["samples"])
        yield from label_faults(table, num_classes)
        if not {index_name(split), labels_name(split)} & changed:
            yield from truth_faults(path / truths_name(split), table, num_classes)
    train = None if labels_name("train") in changed else labels_of(tables, "train")
    yield from class_faults(path / CLASSES, train, num_classes)
    yield from key_faults(tables)


def _checks(path: Path, tables: Tables, manifest: dict[str, Any]) -> Iterator[ShardCheck]:
    """A task for each shard that dataset.json lists, with its rows."""
    files, source = manifest["files"], label_source(manifest)
    in_tars = tables.labels if source == CLS else None
    for number in range(manifest["splits"][tables.split]["shards"]):
        tar, idx = (files.get(shard_name(tables.split, number) + kind) for kind in SHARD_KINDS)
        if tar is None or idx is None:
            return
        rows = tables.rows_of(number)
        labels = np.empty(0, LABEL_DTYPE) if in_tars is None else in_tars[rows.start:rows.stop]
        yield ShardCheck(path, tables.split, number, tar, idx, tables.index if rows else None, rows, labels,
                         source)
