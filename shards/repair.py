"""Rebuild what can be made from the tars: .idx, index, labels, and dataset.json.

Each tar is read from end to end. What differs from what it gives is made anew in DATASET/.repair and renamed into
place, dataset.json last, so that a kill at any moment leaves nothing that the next call would not mend. A damaged tar,
classes.csv, SPLIT.truths.csv and rejected.csv cannot be rebuilt: nothing else holds what they said.
"""
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed

from arcshard.console import UserError, progress
from arcshard.files import folder_lock, report_full_disk, sync_folder, write_text
from shards.content import ShardContent, read_shard
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    INDEX_DTYPE,
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
from shards.manifest import FileEntry, LostManifest, entry_faults, file_entry, read_manifest, write_manifest
from shards.tables import RowFile, Tables, labels_of, new_rows, read_table, read_tables
from shards.verify import class_faults, key_faults, label_faults, truth_faults

# What can be made from the tars alone: the tables of a split, and the options that speak for its photos.

QUALITY = 90  # of JPEGs that predict.py must encode; what the photos in the tars were encoded with is not known


def read_shards(tars: list[Path], what: str, workers: int, decode: bool) -> Iterator[ShardContent]:
    """What each tar holds, in their order, read by `workers` processes; `what` names the progress bar."""
    tasks = (delayed(read_shard)(tar, decode) for tar in tars)
    return progress(Parallel(workers, return_as="generator")(tasks), total=len(tars), unit="shard", what=what)


def write_index(folder: Path, split: str, contents: Iterable[ShardContent]) -> dict[str, int]:
    """Write SPLIT.index.npy and SPLIT.labels.npy of shards 0, 1, 2, … into `folder`, a shard at a time.

    Returns what dataset.json says of the split: samples and shards.
    """
    counts = {"samples": 0, "shards": 0}
    with (new_rows(folder / index_name(split), INDEX_DTYPE) as add_rows,
          new_rows(folder / labels_name(split), np.dtype("<i4")) as add_labels):
        for number, content in enumerate(contents):
            content.rows["shard"] = number
            add_rows(content.rows)
            add_labels(content.labels)
            counts = {"samples": counts["samples"] + len(content.rows), "shards": number + 1}
    return counts


def found_packing(how: str, indexes: list[RowFile]) -> dict[str, Any]:
    """What dataset.json says where nobody knows how the photos were packed: queries are shrunk as these are at most."""
    short_sides = [int(np.minimum(rows["width"], rows["height"]).max()) for index in indexes for rows in index.chunks()]
    return {how: True, "short_side": max(short_sides), "quality": QUALITY}


# Rebuild index, labels and .idx of one split from its tars, aside from the dataset.

@dataclass
class RebuiltSplit:
    """What the tars of a split gave."""

    split: str
    counts: dict[str, int] | None = None
    """Samples and shards; None if a tar is damaged, which makes index and labels impossible."""
    entries: dict[str, FileEntry] = field(default_factory=dict)
    """What dataset.json must say of the files that are sound or rebuilt."""
    lost: list[str] = field(default_factory=list)
    """A sentence for each damaged tar."""


def rebuild_split(folder: Path, work: Path, split: str, shards: int, packed: dict[str, FileEntry] | None,
                  workers: int) -> RebuiltSplit:
    """Write into `work` what the tars of a split give: index, labels, and each .idx that `folder` has not so.

    packed: dataset.json's entries; None: it is lost, so that each photo is decoded, and an index that is there is
    asked for the photos' crc32.
    """
    result = RebuiltSplit(split)
    tars = [folder / f"{shard_name(split, number)}.tar" for number in range(shards)]
    old = read_tables(folder, split, shards) if packed is None else None

    def contents() -> Iterator[ShardContent]:
        found = read_shards(tars, f"repair {split}", workers, decode=packed is None)
        for number, (content, tar) in enumerate(zip(found, tars)):
            damage = _damage(content, tar, packed) if old is None else _contradiction(content, tar, old, number)
            if damage:
                result.lost.append(damage)
            else:
                _write_idx(folder, work, tar, content, result)
            yield content

    counts = write_index(work, split, contents())
    for name in (index_name(split), labels_name(split)):
        if result.lost:
            (work / name).unlink()
        else:
            result.entries[name] = file_entry(work / name)
    result.counts = None if result.lost else counts
    return result


def _write_idx(folder: Path, work: Path, tar: Path, content: ShardContent, result: RebuiltSplit) -> None:
    idx = tar.with_suffix(".idx").name
    if not (folder / idx).is_file() or (folder / idx).read_bytes() != content.idx:
        write_text(work / idx, content.idx.decode())
    there = work / idx if (work / idx).exists() else folder / idx
    result.entries |= {tar.name: content.entry, idx: file_entry(there)}


def _damage(content: ShardContent, tar: Path, packed: dict[str, FileEntry] | None) -> str | None:
    """Why nothing can be made of a tar."""
    faults = [f"{tar.name}: {fault}" for fault in content.faults]
    if packed is not None and tar.name in packed:
        faults += entry_faults(tar.name, content.entry, packed[tar.name])
    return f"{faults[0]}; a damaged tar cannot be rebuilt" if faults else None


def _contradiction(content: ShardContent, tar: Path, old: Tables, number: int) -> str | None:
    """As _damage; also where the index that is there knows another crc32 of a photo, and nothing tells who is right."""
    if damage := _damage(content, tar, None):
        return damage
    place = old.rows_of(number)
    if old.index is None or place is None or place[1] != len(content.rows):
        return None
    rows = old.index.read(*place)
    odd = np.flatnonzero((rows["key"] == content.rows["key"]) & (rows["crc32"] != content.rows["crc32"]))
    if not len(odd):
        return None
    key, name = rows["key"][odd[0]].decode(), index_name(old.split)
    return (f"{tar.name}: the crc32 of sample {key} is not the one in {name}, and without dataset.json nothing tells "
            f"which of both is damaged; if it is the index, delete it")


# What repair must leave as it is: files that no tar can give, and tables of a split that has a damaged tar.

ONLY_COPY = "nothing else holds what it said: bring it back from a copy"


def rest_faults(path: Path, names: set[str], splits: list[RebuiltSplit], tables: list[Tables],
                packed: dict[str, FileEntry] | None) -> list[str]:
    """A sentence for each fault that repair cannot mend, but for the damaged tars themselves.

    names: files that belong to the dataset; tables: of the whole splits, as rebuilt; packed: dataset.json's entries,
    None if it is lost.
    """
    faults = [f"{name}: an extra file: remove it"
              for name in sorted({*os.listdir(path)} - names - {MANIFEST, REPAIRING})]
    for split in splits:
        faults += _left_over(path, split, names, packed or {})
    faults += _only_copies(path, names, packed or {})
    if packed is None:
        faults += _unvouched(path, tables, whole=len(tables) == len(splits))
    return faults + [*key_faults(tables)]


def count_classes(path: Path) -> int | None:
    """Number of classes in a classes.csv; None if it cannot be read."""
    try:
        return len(read_table(path, CLASSES_COLUMNS))
    except (ValueError, OSError):
        return None


def _left_over(path: Path, split: RebuiltSplit, names: set[str], packed: dict[str, FileEntry]) -> Iterator[str]:
    """Tables and .idx that would have to be rebuilt from a damaged tar."""
    own = {name for name in names if name.startswith((f"{split.split}-", f"{split.split}.")) and is_derived(name)}
    for name in sorted(own - split.entries.keys()):
        if not (path / name).is_file() or name not in packed or file_entry(path / name) != packed[name]:
            yield f"{name}: cannot be rebuilt, since a tar that it describes is damaged"


def _only_copies(path: Path, names: set[str], packed: dict[str, FileEntry]) -> Iterator[str]:
    """Files that no tar can give, where they are not as they were packed."""
    for name in sorted(name for name in names if not is_derived(name) and not name.endswith(".tar")):
        if not (path / name).is_file():
            yield f"{name}: missing, and {ONLY_COPY}"
        elif name in packed:
            for fault in entry_faults(name, file_entry(path / name), packed[name]):
                yield f"{fault}, and {ONLY_COPY}"


def _unvouched(path: Path, tables: list[Tables], whole: bool) -> Iterator[str]:
    """What contradicts itself, where dataset.json is lost and cannot vouch for it."""
    num_classes = count_classes(path / CLASSES)
    yield from class_faults(path / CLASSES, labels_of(tables, "train") if whole else None, num_classes or 0)
    if num_classes is None:
        return
    for table in tables:
        yield from label_faults(table, num_classes)
        yield from truth_faults(path / truths_name(table.split), table, num_classes)


def is_derived(name: str) -> bool:
    """Whether a file can be made from the tars."""
    return name.endswith((".idx", ".npy"))


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
    packed: dict[str, FileEntry] | None = manifest["files"] if manifest else None
    shards = _shards(packed or os.listdir(path))
    if not shards:
        raise UserError(f"{path} has no tars to rebuild the dataset from: pack it again")
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


def _names(path: Path, shards: dict[str, int], packed: dict[str, FileEntry] | None) -> set[str]:
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
