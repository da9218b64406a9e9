"""Re-read every byte of a dataset and name each fault.

Each tar is an independent task: it is read once, and what it holds is compared with its rows of index and labels, with
its .idx and with its sha256. Memory does not grow with the number of photos, but for about 45 bytes each while the
tables are checked (4.1 million: 190 MB).
"""
import os
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from arcshard.console import progress
from arcshard.urls import filesystem, reaching
from shards.content import UNREADABLE, ShardContent, read_shard
from shards.folder import read_remote_manifest
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    MANIFEST,
    NO_LANDMARK,
    REJECTED,
    index_name,
    labels_name,
    shard_name,
    truths_name,
)
from shards.manifest import FileEntry, entry_faults, file_entry, read_manifest
from shards.remote import WrongBytes, download
from shards.tables import RowFile, Tables, labels_of, read_table, read_tables, read_truths, repeated_keys

# Compare a dataset in object storage with its dataset.json; nothing is kept here.

THREADS = 4


def verify_remote(url: str) -> list[str]:
    """One sentence for each file that is not as it was packed, its name first; [] if all are.

    dataset.json holds the sha256 of every other file, so what `verify` found whole is whole here if these agree. Raises
    UserError for what is no dataset, and if the server cannot be reached.
    """
    url = url.rstrip("/")
    files, sizes = read_remote_manifest(url)["files"], _sizes(url)
    faults = [*_remote_listing_faults(files, sizes)]
    sound = [name for name, entry in files.items() if sizes.get(name) == entry["size"]]
    with progress(total=len(sound), unit="file", what="verify") as bar, ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(lambda name: _content_faults(url, name, files[name]), sound):
            faults += found
            bar.update()
    return faults


def _sizes(url: str) -> dict[str, int]:
    """Bytes of each file in the folder."""
    with reaching(url):
        fs, path = filesystem(url)
        fs.invalidate_cache()
        return {info["name"].rpartition("/")[2]: info["size"] for info in fs.ls(path, detail=True)}


def _remote_listing_faults(files: dict[str, FileEntry], sizes: dict[str, int]) -> Iterator[str]:
    for name in sorted(sizes.keys() - {MANIFEST, *files}):
        yield f"{name}: an extra file that {MANIFEST} does not list"
    for name, entry in sorted(files.items()):
        if name not in sizes:
            yield f"{name}: missing"
        elif sizes[name] != entry["size"]:
            yield f"{name}: has {sizes[name]} bytes, was packed with {entry['size']}"


def _content_faults(url: str, name: str, entry: FileEntry) -> list[str]:
    with open(os.devnull, "wb") as nowhere:
        try:
            download(f"{url}/{name}", entry, nowhere, Event())
        except WrongBytes:
            return [f"{name}: its sha256 is not the one it was packed with"]
    return []


# Compare one tar with its rows of index and labels, its .idx, and what dataset.json says of both.

FIELDS = ["offset", "size", "width", "height", "crc32", "key"]
MAX_FAULTS = 100  # of one shard; the others are counted


@dataclass(frozen=True)
class ShardCheck:
    """A shard to check, in any process: its files, their entries in dataset.json, and its rows."""

    folder: Path
    split: str
    number: int
    tar: FileEntry
    idx: FileEntry
    index: RowFile | None
    """None: the index is not sound enough to be compared."""
    first: int
    """Its first row in the index."""
    rows: int
    labels: np.ndarray
    """(rows,) int32; shorter: the labels are not sound enough to be compared."""

    @property
    def name(self) -> str:
        """File name of its tar."""
        return f"{shard_name(self.split, self.number)}.tar"


def shard_faults(check: ShardCheck) -> list[str]:
    """One sentence for each fault of the shard; a missing file is named elsewhere."""
    faults = [*_faults(check)]
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"{check.name}: {len(faults) - MAX_FAULTS} more faults of this shard"]
    return faults


def _faults(check: ShardCheck) -> Iterator[str]:
    tar = check.folder / check.name
    idx, content = tar.with_suffix(".idx"), None
    if tar.is_file():
        content = read_shard(tar)
        yield from _tar_faults(check, content)
    if not idx.is_file():
        return
    if content and _as_packed(check, content) and idx.read_bytes() != content.idx:
        yield f"{idx.name}: stale, it is not the index of {tar.name}"
    else:
        yield from entry_faults(idx.name, file_entry(idx), check.idx)


def _as_packed(check: ShardCheck, content: ShardContent) -> bool:
    return content.entry == check.tar


def _tar_faults(check: ShardCheck, content: ShardContent) -> Iterator[str]:
    """Its sha256 speaks only where nothing says more."""
    faults = [f"{check.name}: {fault}" for fault in content.faults]
    if check.index:
        faults += _differences(check, content, check.index.read(check.first, check.rows))
    if not any(fault.startswith(f"{check.name}:") for fault in faults):
        faults += entry_faults(check.name, content.entry, check.tar)
    yield from faults


def _differences(check: ShardCheck, content: ShardContent, rows: np.ndarray) -> Iterator[str]:
    """What differs between the tar and its rows; the blame lies with the file whose sha256 is not the packed one."""
    if len(rows) == len(content.rows):
        for i in np.flatnonzero(_unequal(check, content, rows)).tolist():
            yield from _sample_faults(check, content, rows[i], i, i)
        return
    places = {offset: j for j, offset in enumerate(content.rows["offset"].tolist())}
    for i, offset in enumerate(rows["offset"].tolist()):
        yield from _sample_faults(check, content, rows[i], i, places.pop(offset, None))
    for offset, j in places.items():
        key = _show(content.rows["key"][j])
        yield f"{check.name}: holds a sample {key} at offset {offset} that {index_name(check.split)} lacks"


def _unequal(check: ShardCheck, content: ShardContent, rows: np.ndarray) -> np.ndarray:
    """Whether something differs, bool (rows,)."""
    unequal = np.zeros(len(rows), bool)
    for name in FIELDS:
        unequal |= rows[name] != content.rows[name]
    return unequal | (check.labels != content.labels) if len(check.labels) == len(rows) else unequal


def _sample_faults(check: ShardCheck, content: ShardContent, row: np.void, i: int, j: int | None) -> Iterator[str]:
    """How sample i of the tables differs from sample j of the tar."""
    place = f"sample {_show(row['key'])} at offset {row['offset']}"
    if j is None:
        yield f"{check.name}: {place} is not there any more"
        return
    found = content.rows[j]
    sized = found["width"] > 0  # else the photo is not in the form, which has been said
    fields = [name for name in FIELDS if row[name] != found[name] and (sized or name not in ("width", "height"))]
    if fields and _as_packed(check, content):
        texts = [f"{name} is {_show(row[name])}, but {check.name} has {_show(found[name])}" for name in fields]
        yield f"{index_name(check.split)}: row {check.first + i}, {place}: {'; '.join(texts)}"
    elif fields:
        texts = ["the photo's bytes are not those that were packed" if name == "crc32" else
                 f"{name} is {_show(found[name])}, was packed with {_show(row[name])}" for name in fields]
        yield f"{check.name}: {place}: {'; '.join(texts)}"
    if len(check.labels) == check.rows and content.labels[j] not in (check.labels[i], UNREADABLE):
        yield _label_fault(check, content, place, i, j)


def _label_fault(check: ShardCheck, content: ShardContent, place: str, i: int, j: int) -> str:
    found, packed = content.labels[j], check.labels[i]
    if _as_packed(check, content):
        return (f"{labels_name(check.split)}: row {check.first + i}, {place}: label is {packed}, "
                f"but {check.name} has {found}")
    return f"{check.name}: {place}: label is {found}, was packed with {packed}"


def _show(value: object) -> str:
    return value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)


# What can be wrong with the files that bind the shards: index, labels, classes, truths.

def count_faults(tables: Tables, samples: int) -> Iterator[str]:
    """Index and labels that have not `samples` rows."""
    rows = {index_name(tables.split): None if tables.index is None else tables.index.rows,
            labels_name(tables.split): None if tables.labels is None else len(tables.labels)}
    for name, count in rows.items():
        if count not in (None, samples):
            yield f"{name}: has {count} rows, {MANIFEST} counts {samples} samples"


def label_faults(tables: Tables, num_classes: int) -> Iterator[str]:
    """Labels that are no class."""
    if tables.labels is not None:
        wrong = (tables.labels < NO_LANDMARK) | (tables.labels >= num_classes)
        if wrong.any():
            yield f"{labels_name(tables.split)}: {wrong.sum()} labels are not -1 to {num_classes - 1}"


def key_faults(tables: list[Tables]) -> Iterator[str]:
    """Keys that name several samples, in one split or in several."""
    first: dict[bytes, str] = {}
    for key, table, row in repeated_keys(tables):
        name = index_name(table.split)
        if key in first:
            yield f"{name}: row {row} has the key {key.decode('ascii', 'backslashreplace')}, which {first[key]} has too"
        first.setdefault(key, f"row {row} of {name}")


def class_faults(path: Path, train: np.ndarray | None, num_classes: int) -> Iterator[str]:
    """What classes.csv gets wrong: labels, landmark ids, the number of a class's train photos; the first of each.

    train: labels of split train; None: they are not sound enough to be counted.
    """
    if not path.is_file():
        return
    try:
        rows = read_table(path, CLASSES_COLUMNS)
    except ValueError as error:
        yield f"{path.name}: {error}"
        return
    if len(rows) != num_classes:
        yield f"{path.name}: has {len(rows)} classes, {MANIFEST} counts {num_classes}"
    if wrong := [row[0] for number, row in enumerate(rows) if row[0] != str(number)]:
        yield f"{path.name}: its labels must be 0, 1, 2, … in order, not {wrong[0]!r}"
    if len({row[1] for row in rows}) < len(rows):
        yield f"{path.name}: it has a landmark_id twice"
    if train is not None:
        yield from _image_count_faults(path.name, [row[2] for row in rows], train)


def truth_faults(path: Path, tables: Tables, num_classes: int) -> Iterator[str]:
    """What SPLIT.truths.csv gets wrong about the split's samples; the first of each kind."""
    try:
        truths = read_truths(path)
    except ValueError as error:
        yield f"{path.name}: {error}"
        return
    for key, labels in truths.items():
        if max(labels) >= num_classes or len({*labels}) < len(labels):
            yield f"{path.name}: sample {key} must have labels of 0 to {num_classes - 1}, each once, not {labels}"
            break
    if truths and tables.index and tables.labels is not None and tables.index.rows == len(tables.labels):
        yield from _own_label_faults(path.name, truths, tables.labels_by_key({*truths}))


def _own_label_faults(name: str, truths: dict[str, list[int]], own: dict[str, int]) -> Iterator[str]:
    if unknown := truths.keys() - own.keys():
        yield f"{name}: the split has no sample {min(unknown)}"
    if wrong := [key for key, label in own.items() if truths[key][0] != label]:
        key = min(wrong)
        yield f"{name}: the first label of sample {key} must be its own, {own[key]}, not {truths[key][0]}"


def _image_count_faults(name: str, counts: list[str], labels: np.ndarray) -> Iterator[str]:
    images = np.bincount(labels[(labels >= 0) & (labels < len(counts))], minlength=len(counts)).tolist()
    for label, (count, right) in enumerate(zip(counts, images)):
        if count != str(right):
            yield f"{name}: says that class {label} has {count!r} images, split train has {right}"
            return


SHARD_KINDS = (".tar", ".idx")


def verify(path: str | Path, workers: int = 1) -> list[str]:
    """One sentence for each fault of the dataset in folder `path`, the file's name first; [] if it is whole.

    The order depends on the dataset alone, not on `workers` (processes). Raises UserError for a folder that is no
    dataset.
    """
    path = Path(path)
    manifest = read_manifest(path)
    changed = {fault.partition(":")[0]: fault for fault in _digest_faults(path, manifest)}
    tables = [read_tables(path, split, counts["shards"]) for split, counts in manifest["splits"].items()]
    faults = [*_listing_faults(path, manifest), *_table_faults(path, manifest, tables, changed.keys())]
    checks = [check for table in tables for check in _checks(path, table, manifest)]
    with progress(total=len(checks), unit="shard", what="verify") as bar:
        for found in Parallel(workers, return_as="generator")(delayed(shard_faults)(check) for check in checks):
            faults += found
            bar.update()
    named = {fault.partition(":")[0] for fault in faults}
    return faults + [fault for name, fault in changed.items() if name not in named]


def _listing_faults(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Files that are missing, too many, or not listed."""
    files, splits, needed = manifest["files"], manifest["splits"], {*_needed(manifest)}
    for name in sorted({entry.name for entry in path.iterdir()} - {MANIFEST, *files}):
        yield f"{name}: an extra file that {MANIFEST} does not list"
    for name in sorted(needed - files.keys()):
        yield f"{MANIFEST}: lists no {name}, which its splits need"
    for name in sorted(files.keys() - needed - {truths_name(split) for split in splits}):
        yield f"{MANIFEST}: lists {name}, which its splits do not have"
    for name in sorted(files):
        if not (path / name).is_file():
            yield f"{name}: missing"


def _needed(manifest: dict[str, Any]) -> Iterator[str]:
    """Names that dataset.json must list for its splits."""
    yield from (CLASSES, REJECTED)
    for split, counts in manifest["splits"].items():
        yield from (index_name(split), labels_name(split))
        for number in range(min(counts["shards"], len(manifest["files"]))):  # at most, should the count be damaged
            yield from (shard_name(split, number) + kind for kind in SHARD_KINDS)


def _digest_faults(path: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """Files that are no shards, whose size or sha256 is not the one in dataset.json."""
    for name, entry in sorted(manifest["files"].items()):
        if not name.endswith(SHARD_KINDS) and (path / name).is_file():
            yield from entry_faults(name, file_entry(path / name), entry)


def _table_faults(path: Path, manifest: dict[str, Any], tables: list[Tables], changed: Set[str]) -> Iterator[str]:
    """What the files that are no shards say wrongly, but for what follows from one that was `changed`."""
    num_classes = manifest["num_classes"]
    for table in tables:
        split, sound = table.split, not {index_name(table.split), labels_name(table.split)} & changed
        yield from table.faults
        yield from count_faults(table, manifest["splits"][split]["samples"])
        yield from label_faults(table, num_classes)
        if sound:
            yield from truth_faults(path / truths_name(split), table, num_classes)
    train = None if labels_name("train") in changed else labels_of(tables, "train")
    yield from class_faults(path / CLASSES, train, num_classes)
    yield from key_faults(tables)


def _checks(path: Path, tables: Tables, manifest: dict[str, Any]) -> Iterator[ShardCheck]:
    """A task for each shard that dataset.json lists, with its rows."""
    files, nothing = manifest["files"], np.empty(0, np.int32)
    for number in range(manifest["splits"][tables.split]["shards"]):
        name, rows = shard_name(tables.split, number), tables.rows_of(number)
        if not all(name + kind in files for kind in SHARD_KINDS):
            return
        first, count = rows or (0, 0)
        labels = nothing if tables.labels is None else tables.labels[first:first + count]
        yield ShardCheck(path, tables.split, number, files[f"{name}.tar"], files[f"{name}.idx"],
                         tables.index if rows else None, first, count, labels)
