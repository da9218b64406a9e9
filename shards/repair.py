"""Rebuild what can be made from the tars: .idx, index, labels, and dataset.json.

Each tar is read from end to end. What differs from what it gives is made anew in DATASET/.repair and renamed into
place, dataset.json last, so that a kill at any moment leaves nothing that the next call would not mend. A damaged tar,
classes.csv, SPLIT.truths.csv and rejected.csv cannot be rebuilt: nothing else holds what they said.
"""
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from arcshard.alone import alone
from arcshard.console import UserError
from arcshard.files import sync_folder
from arcshard.full_disk import full_disk_is_a_sentence
from shards.file_entry import Entry, file_entry
from shards.format import (
    CLASSES,
    MANIFEST,
    REJECTED,
    REPAIRING,
    SPLIT_PATTERN,
    UNFINISHED,
    index_name,
    labels_name,
    shard_name,
    truths_name,
)
from shards.manifest import LostManifest, read_manifest, write_manifest
from shards.rebuild import found_packing
from shards.repair_rest import count_classes, rest_faults
from shards.repair_split import RebuiltSplit, rebuild_split
from shards.tables import Tables, read_tables

TAR = re.compile(rf"({SPLIT_PATTERN})-(\d{{6,}})\.tar")
Manifest = dict[str, Any]


class Repair(NamedTuple):
    """What was done, and what is left."""

    rebuilt: list[str]
    """Names of files."""
    lost: list[str]
    """A sentence for each file that is still not right, its name first."""


def repair(path: str | Path, workers: int = 1) -> Repair:
    """Rebuild what can be rebuilt of the dataset in folder `path`; nothing else there changes.

    Without dataset.json it is made of the files that are there, and says `repaired` instead of the lost options of
    packing. Raises UserError for a folder that is no dataset, or that another process writes into, and for a full
    disk.
    """
    path = Path(path)
    _read(path)  # a folder that is no dataset is not touched
    with full_disk_is_a_sentence(path), alone(path):
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
    packed: dict[str, Entry] | None = manifest["files"] if manifest else None
    shards = _shards(packed or os.listdir(path))
    if not shards:
        raise UserError(f"a dataset is rebuilt from its tars, but {path} has none: pack it again")
    splits = [rebuild_split(path, work, split, count, packed, workers) for split, count in shards.items()]
    tables = [read_tables(work, split.split, split.counts["shards"]) for split in splits if split.counts]
    names = _names(path, shards, packed)
    lost = [sentence for split in splits for sentence in split.lost]
    lost += rest_faults(path, names, splits, tables, packed)
    made = _made(path, manifest, names, splits, tables) if manifest or not lost else None
    rebuilt = [name for name in sorted(os.listdir(work)) if _take_place(work / name, path / name)]
    sync_folder(path)
    if made is None:
        lost.append(f"{MANIFEST}: cannot be rebuilt before the rest is right")
    elif made != manifest:
        write_manifest(path, made["num_classes"], made["splits"], made["packing"], made["files"])
        rebuilt.append(MANIFEST)
    return Repair(rebuilt, lost)


def _shards(names: Iterable[str]) -> dict[str, int]:
    """Number of shards of each split, by the names of their tars."""
    counts: dict[str, int] = {}
    for split, number in (found.groups() for name in names if (found := TAR.fullmatch(name))):
        counts[split] = max(counts.get(split, 0), int(number) + 1)
    return dict(sorted(counts.items()))


def _names(path: Path, shards: dict[str, int], packed: dict[str, Entry] | None) -> set[str]:
    """Files that belong to a dataset of these shards."""
    names = {CLASSES, REJECTED}
    for split, count in shards.items():
        names |= {index_name(split), labels_name(split)}
        names |= {shard_name(split, number) + kind for number in range(count) for kind in (".tar", ".idx")}
        truths = truths_name(split)
        if truths in packed if packed is not None else (path / truths).exists():
            names.add(truths)
    return names


def _made(path: Path, manifest: Manifest | None, names: set[str], splits: list[RebuiltSplit],
          tables: list[Tables]) -> Manifest:
    """What dataset.json must say; of what could not be rebuilt it says what it said."""
    before = manifest or {"splits": {}, "files": {}}
    counts = before["splits"] | {split.split: split.counts for split in splits if split.counts}
    entries = before["files"] | {name: entry for split in splits for name, entry in split.entries.items()}
    files = {name: entries[name] if name in entries else file_entry(path / name) for name in names
             if name in entries or (path / name).is_file()}
    return before | {
        "num_classes": _num_classes(path / CLASSES, manifest), "files": files,
        "splits": {split.split: counts[split.split] for split in splits if split.split in counts},
        "packing": manifest["packing"] if manifest else found_packing("repaired", [t.index for t in tables if t.index])}


def _num_classes(classes: Path, manifest: Manifest | None) -> int:
    """As classes.csv has them, unless it is not the one that was packed."""
    count = count_classes(classes)
    if manifest and (count is None or file_entry(classes) != manifest["files"].get(CLASSES)):
        return manifest["num_classes"]
    assert count is not None, "an unreadable classes.csv has been named, and nothing is made of it"
    return count


def _take_place(aside: Path, path: Path) -> bool:
    """Whether the file was not there, or other than it should be."""
    if path.is_file() and file_entry(path) == file_entry(aside):
        return False
    os.replace(aside, path)
    return True
