"""Compare one tar with its rows of index and labels, its .idx, and what dataset.json says of both."""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.file_entry import Entry, entry_faults, file_entry
from shards.format import index_name, labels_name, shard_name
from shards.npy import RowFile
from shards.shard_content import UNREADABLE, ShardContent, read_shard

FIELDS = ["offset", "size", "width", "height", "crc32", "key"]
MAX_FAULTS = 100  # of one shard; the others are counted


@dataclass(frozen=True)
class ShardCheck:
    """A shard to check, in any process: its files, their entries in dataset.json, and its rows."""

    folder: Path
    split: str
    number: int
    tar: Entry
    idx: Entry
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
