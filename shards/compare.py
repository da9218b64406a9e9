"""Compare one tar with its rows in index and labels, with its .idx, and with the entries of both in dataset.json."""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.content import UNREADABLE, ShardContent, read_shard
from shards.entry import FileEntry, entry_fault, file_entry
from shards.format import index_name, key_text, labels_name, shard_name
from shards.rows import RowFile

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
    rows: range
    """The shard's rows in the index."""
    labels: np.ndarray
    """(rows,) int32; shorter: the labels are not sound enough to be compared, or not in the tar."""
    label_from: str
    """As in read_shard."""

    @property
    def name(self) -> str:
        """File name of its tar."""
        return f"{shard_name(self.split, self.number)}.tar"


def shard_faults(check: ShardCheck) -> list[str]:
    """One sentence for each fault of the shard; a missing file is named elsewhere."""
    tar = check.folder / check.name
    content = read_shard(tar, label_from=check.label_from) if tar.is_file() else None
    faults = [*(_tar_faults(check, content) if content else []), *_idx_faults(check, content)]
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"{check.name}: {len(faults) - MAX_FAULTS} more faults of this shard"]
    return faults


def _tar_faults(check: ShardCheck, content: ShardContent) -> list[str]:
    faults = [f"{check.name}: {fault}" for fault in content.faults]
    if check.index:
        faults += _Comparison(check, content, check.index.read(check.rows.start, len(check.rows))).faults()
    is_named = any(fault.startswith(f"{check.name}:") for fault in faults)
    if not is_named and (fault := entry_fault(content.entry, check.tar)):  # the only sign of damage
        faults.append(f"{check.name}: {fault}")
    return faults


def _idx_faults(check: ShardCheck, content: ShardContent | None) -> Iterator[str]:
    idx = (check.folder / check.name).with_suffix(".idx")
    if not idx.is_file():
        return
    if content and content.entry == check.tar and idx.read_bytes() != content.idx.encode():
        yield f"{idx.name}: stale, it is not the index of {check.name}"
    elif fault := entry_fault(file_entry(idx), check.idx):
        yield f"{idx.name}: {fault}"


class _Comparison:
    """What a tar holds beside its rows of index and labels; the tables are to blame if the tar is as it was packed.

    i counts the rows, j the samples of the tar.
    """

    def __init__(self, check: ShardCheck, content: ShardContent, rows: np.ndarray):
        self.check, self.content, self.rows = check, content, rows
        self.tar_is_sound = content.entry == check.tar
        self.has_labels = len(check.labels) == len(rows)

    def faults(self) -> Iterator[str]:
        """One sentence for each difference."""
        if len(self.rows) == len(self.content.rows):
            for i in np.flatnonzero(self._unequal()).tolist():
                yield from self._sample_faults(i, i)
            return
        unclaimed = {offset: j for j, offset in enumerate(self.content.rows["offset"].tolist())}
        for i, offset in enumerate(self.rows["offset"].tolist()):
            yield from self._sample_faults(i, unclaimed.pop(offset, None))
        for offset, j in unclaimed.items():
            key = _text(self.content.rows["key"][j])
            yield f"{self.check.name}: holds a sample {key} at offset {offset} that {self._index} lacks"

    @property
    def _index(self) -> str:
        return index_name(self.check.split)

    def _unequal(self) -> np.ndarray:
        """Whether row i differs from sample i of the tar, bool (rows,)."""
        unequal = np.logical_or.reduce([self.rows[name] != self.content.rows[name] for name in FIELDS])
        return unequal | (self.check.labels != self.content.labels) if self.has_labels else unequal

    def _sample_faults(self, i: int, j: int | None) -> Iterator[str]:
        row, place = self.rows[i], f"sample {_text(self.rows['key'][i])} at offset {self.rows['offset'][i]}"
        if j is None:
            yield f"{self.check.name}: {place} is no longer there"
            return
        sample = self.content.rows[j]
        unknown = () if sample["width"] else ("width", "height")  # not in normal form: a fault of its own
        fields = [name for name in FIELDS if row[name] != sample[name] and name not in unknown]
        if fields and self.tar_is_sound:
            texts = [f"{name} is {_text(row[name])}, but {self.check.name} has {_text(sample[name])}"
                     for name in fields]
            yield f"{self._index}: row {self.check.rows[i]}, {place}: {'; '.join(texts)}"
        elif fields:
            texts = ["the photo's bytes are not those that were packed" if name == "crc32" else
                     f"{name} is {_text(sample[name])}, was packed with {_text(row[name])}" for name in fields]
            yield f"{self.check.name}: {place}: {'; '.join(texts)}"
        if self.has_labels:
            yield from self._label_faults(i, j, place)

    def _label_faults(self, i: int, j: int, place: str) -> Iterator[str]:
        in_table, in_tar = self.check.labels[i], self.content.labels[j]
        if in_tar in (in_table, UNREADABLE):
            return
        if self.tar_is_sound:
            yield (f"{labels_name(self.check.split)}: row {self.check.rows[i]}, {place}: label is {in_table}, "
                   f"but {self.check.name} has {in_tar}")
        else:
            yield f"{self.check.name}: {place}: label is {in_tar}, was packed with {in_table}"


def _text(value: object) -> str:
    return key_text(value) if isinstance(value, bytes) else str(value)
