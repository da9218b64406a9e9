"""Rebuild index, labels and .idx of one split from its tars, aside from the dataset."""
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from arcshard.files import write_text
from shards.file_entry import Entry, entry_faults, file_entry
from shards.format import index_name, labels_name, shard_name
from shards.rebuild import read_shards, write_index
from shards.shard_content import ShardContent
from shards.tables import Tables, read_tables


@dataclass
class RebuiltSplit:
    """What the tars of a split gave."""

    split: str
    counts: dict[str, int] | None = None
    """Samples and shards; None if a tar is damaged, which makes index and labels impossible."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """What dataset.json must say of the files that are sound or rebuilt."""
    lost: list[str] = field(default_factory=list)
    """A sentence for each damaged tar."""


def rebuild_split(folder: Path, work: Path, split: str, shards: int, packed: dict[str, Entry] | None,
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


def _damage(content: ShardContent, tar: Path, packed: dict[str, Entry] | None) -> str | None:
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
