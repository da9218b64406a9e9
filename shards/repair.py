"""Rebuild what the tars determine: .idx, index, labels and dataset.json.

Each tar is read from start to end. All files that follow from it are written into DATASET/.repair; those that differ
from what is there are renamed into place, dataset.json last, so that after a kill at any moment the next call completes
the repair. A damaged tar, classes.csv, SPLIT.truths.csv, rejected.csv, and labels that adopt took from elsewhere cannot
be rebuilt: no other file has their content.
"""
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcshard.console import UserError
from arcshard.csv_table import read_table
from arcshard.files import folder_lock, report_full_disk, sync_folder
from shards.content import CLS, NO_LABEL, ShardContent
from shards.entry import FileEntry, entry_fault, file_entry
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    MANIFEST,
    REJECTED,
    REPAIRING,
    SPLIT_PATTERN,
    UNFINISHED,
    index_name,
    labels_name,
    shard_name,
    split_files,
    truths_name,
)
from shards.manifest import LostManifest, label_source, read_manifest, write_manifest
from shards.rebuild import Judge, RebuiltSplit, rebuild_split, unknown_packing
from shards.table_faults import class_faults, key_faults, label_faults, truth_faults
from shards.tables import Tables, labels_of, read_tables

TAR = re.compile(rf"({SPLIT_PATTERN})-(\d{{6,}})\.tar")
NO_REBUILDING = "a damaged tar cannot be rebuilt"
ADOPT = f"restore {MANIFEST}, or adopt the tars again with --label-from"
ONLY_COPY = "no other file has its content: restore it from a backup"

Manifest = dict[str, Any]
Packed = dict[str, FileEntry]
"""The entries in dataset.json, by name of the file; {} if dataset.json is lost."""


class Repair(NamedTuple):
    """What was done, and what is left."""

    rebuilt: list[str]
    """Names of files."""
    lost: list[str]
    """A sentence for each file that is still faulty, its name first."""


def repair(path: str | Path, workers: int = 1) -> Repair:
    """Rebuild what can be rebuilt of the dataset in folder `path`; nothing else there changes.

    If dataset.json is lost, it is made of the files that are there, with `repaired` in place of the lost options of
    packing. Raises UserError for a folder that is no dataset, or that another process writes into, and for a full
    disk.
    """
    path = Path(path)
    _read(path)  # a folder that is no dataset is not touched
    with report_full_disk(path), folder_lock(path):
        manifest, work = _read(path), path / REPAIRING
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            return _repair(path, work, manifest, workers)
        finally:
            shutil.rmtree(work)


def _read(path: Path) -> Manifest | None:
    """dataset.json, or None if it is lost."""
    try:
        return read_manifest(path)
    except LostManifest:
        if (path / UNFINISHED).exists():
            raise UserError(f"{path} is being packed, or its packing was interrupted: run the same make_shards.py "
                            "command again") from None
        return None


def _repair(path: Path, work: Path, manifest: Manifest | None, workers: int) -> Repair:
    packed: Packed = manifest["files"] if manifest else {}
    shards = _shards(packed or os.listdir(path))
    if not shards:
        raise UserError(f"{path} has no tars to rebuild the dataset from: pack it again")
    source = label_source(manifest) if manifest else CLS
    splits = [rebuild_split(split, [path / f"{shard_name(split, number)}.tar" for number in range(count)], work,
                            _judge(path, split, count, packed), label_from=source, decode=not packed, workers=workers,
                            what=f"repair {split}") for split, count in shards.items()]
    tables = [read_tables(work, split.split, split.shards) for split in splits if not split.faults]
    unique = _unique_files(path, shards, packed, source)
    lost = [*_lost(path, unique, splits, tables, packed)]
    new = _new_manifest(path, unique, manifest, splits, tables) if manifest or not lost else None
    rebuilt = [name for name in sorted(os.listdir(work)) if _take_place(work / name, path / name)]
    sync_folder(path)
    if new is None:
        lost.append(f"{MANIFEST}: cannot be rebuilt until the other faults are repaired")
    elif manifest is None or manifest | new != manifest:
        write_manifest(path, **new)
        rebuilt.append(MANIFEST)
    return Repair(rebuilt, lost)


def _shards(names: Iterable[str]) -> dict[str, int]:
    """Number of shards of each split, by the names of their tars."""
    counts: dict[str, int] = {}
    for split, number in (match.groups() for name in names if (match := TAR.fullmatch(name))):
        counts[split] = max(counts.get(split, 0), int(number) + 1)
    return dict(sorted(counts.items()))


def _judge(path: Path, split: str, shards: int, packed: Packed) -> Judge:
    """Compares tars with dataset.json; if that is lost, with the photos' crc32 in an index that is there."""
    def against_manifest(number: int, content: ShardContent) -> list[str]:
        entry = packed.get(f"{shard_name(split, number)}.tar", content.entry)
        faults = [*content.faults, entry_fault(content.entry, entry)]
        return [f"{fault}; {NO_REBUILDING if packed or NO_LABEL not in fault else ADOPT}" for fault in faults if fault]

    if packed:
        return against_manifest
    old = read_tables(path, split, shards)
    return lambda number, content: against_manifest(number, content) or [*_contradictions(old, number, content)]


def _contradictions(old: Tables, number: int, content: ShardContent) -> Iterator[str]:
    """Photos whose crc32 differs from the index, where nothing tells which of both is right."""
    place = old.rows_of(number)
    if old.index is None or len(place) != len(content.rows):
        return
    rows = old.index.read(place.start, len(place))
    for i in np.flatnonzero((rows["key"] == content.rows["key"]) & (rows["crc32"] != content.rows["crc32"])):
        yield (f"the crc32 of sample {rows['key'][i].decode()} is not the one in {index_name(old.split)}, and without "
               f"{MANIFEST} nothing tells which of both is damaged; if it is the index, delete it")


def _unique_files(path: Path, splits: Collection[str], packed: Packed, label_from: str) -> list[str]:
    """The dataset's files that no tar can give."""
    labels = [] if label_from == CLS else map(labels_name, splits)
    truths = [name for name in map(truths_name, splits) if (name in packed if packed else (path / name).exists())]
    return sorted([CLASSES, REJECTED, *labels, *truths])


def _lost(path: Path, unique: list[str], splits: list[RebuiltSplit], tables: list[Tables],
          packed: Packed) -> Iterator[str]:
    """A sentence for each fault that remains. tables: of the splits without a damaged tar, as rebuilt."""
    for split in splits:
        for number, faults in split.faults.items():
            yield f"{shard_name(split.split, number)}.tar: {faults[0]}"
    known = {name for split in splits for name in split_files(split.split, split.shards)}
    for name in sorted({*os.listdir(path)} - known - {*unique, MANIFEST, REPAIRING}):
        yield f"{name}: an extra file: remove it"
    for split in splits:
        for name in sorted({*split_files(split.split, split.shards)} - split.entries.keys() - {*unique}):
            if not name.endswith(".tar") and not _is_as_packed(path / name, packed):
                yield f"{name}: cannot be rebuilt, since a tar that it describes is damaged"
    for name in unique:
        if not (path / name).is_file():
            yield f"{name}: missing, and {ONLY_COPY}"
        elif name in packed and (fault := entry_fault(file_entry(path / name), packed[name])):
            yield f"{name}: {fault}, and {ONLY_COPY}"
    if not packed:
        yield from _unvouched(path, tables, labels_of(tables, "train") if len(tables) == len(splits) else None)
    yield from key_faults(tables)


def _is_as_packed(path: Path, packed: Packed) -> bool:
    return path.is_file() and path.name in packed and file_entry(path) == packed[path.name]


def _unvouched(path: Path, tables: list[Tables], train: np.ndarray | None) -> Iterator[str]:
    """Contradictions between files that a lost dataset.json cannot vouch for. train: as in class_faults."""
    num_classes = _count_classes(path / CLASSES)
    yield from class_faults(path / CLASSES, train, num_classes or 0)
    if num_classes is None:
        return
    for table in tables:
        yield from label_faults(table, num_classes)
        yield from truth_faults(path / truths_name(table.split), table, num_classes)


def _new_manifest(path: Path, unique: list[str], manifest: Manifest | None, splits: list[RebuiltSplit],
                  tables: list[Tables]) -> Manifest:
    """The right arguments of write_manifest; entries of files that could not be rebuilt stay as they are."""
    counts = dict(manifest["splits"]) if manifest else {}
    entries = dict(manifest["files"]) if manifest else {}
    names = [*unique]
    for split in splits:
        names += split_files(split.split, split.shards)
        entries |= split.entries
        if not split.faults:
            counts[split.split] = split.counts
    return {"num_classes": _num_classes(path / CLASSES, manifest),
            "splits": {split.split: counts[split.split] for split in splits if split.split in counts},
            "packing": manifest["packing"] if manifest else unknown_packing("repaired", tables),
            "files": {name: entries.get(name) or file_entry(path / name) for name in names
                      if name in entries or (path / name).is_file()}}


def _num_classes(classes: Path, manifest: Manifest | None) -> int:
    """Counted in classes.csv, unless that is not the one that was packed."""
    count = _count_classes(classes)
    if manifest and (count is None or not _is_as_packed(classes, manifest["files"])):
        return manifest["num_classes"]
    assert count is not None, "an unreadable classes.csv has been named, and nothing is made of it"
    return count


def _count_classes(classes: Path) -> int | None:
    """None if the file cannot be read."""
    try:
        return len(read_table(classes, CLASSES_COLUMNS))
    except (ValueError, OSError):
        return None


def _take_place(aside: Path, path: Path) -> bool:
    """Whether the file had to be replaced: it was missing, or different."""
    if path.is_file() and file_entry(path) == file_entry(aside):
        return False
    os.replace(aside, path)
    return True
