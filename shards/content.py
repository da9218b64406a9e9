"""Read what a tar really holds: index, labels and .idx are compared with it, or rebuilt from it."""
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.entry import FileEntry, HashingStream
from shards.format import INDEX_DTYPE, LABEL_DTYPE, NO_LANDMARK, idx_text
from shards.jpeg import NotNormal, check_decodes, frame_size
from shards.tar import TarFault, TarMember, members

LABEL = re.compile(r"-1|0|[1-9]\d{0,8}")
UNREADABLE = NO_LANDMARK - 1  # in place of a label that is not valid


@dataclass(frozen=True)
class ShardContent:
    """One tar, read once. n: its samples, in their order."""

    rows: np.ndarray
    """(n,) INDEX_DTYPE, shard 0; width and height are 0 if the photo is not in normal form."""
    labels: np.ndarray
    """(n,) int32, UNREADABLE where the tar has no valid label."""
    label_offsets: np.ndarray
    """(n,) int64, where each label's bytes begin in the tar."""
    faults: list[str]
    """A sentence for everything that the format forbids, in the order of the tar."""
    entry: FileEntry
    """Size and sha256 of the tar."""

    @property
    def idx(self) -> str:
        """The text that its .idx must have."""
        return idx_text(self.rows, self.labels, self.label_offsets)


def read_shard(path: Path, decode: bool = False) -> ShardContent:
    """Read a tar from end to end, one member in memory at a time; `decode` also decodes each photo.

    A file that the system cannot read is a fault too.
    """
    try:
        with open(path, "rb") as f:
            return _read(HashingStream(f), decode)
    except OSError as error:
        return ShardContent(np.empty(0, INDEX_DTYPE), np.empty(0, LABEL_DTYPE), np.empty(0, np.int64),
                            [f"cannot be read ({error.strerror})"], {"size": 0, "sha256": ""})


def _read(tar: HashingStream, decode: bool) -> ShardContent:
    rows: list[tuple[Any, ...]] = []
    labels: list[int] = []
    label_offsets: list[int] = []
    faults: list[TarFault] = []
    for item in _pairs(members(tar)):
        if isinstance(item, TarFault):
            faults.append(item)
            continue
        photo, label = item
        width = height = 0
        try:
            if decode:
                check_decodes(photo.data)
            width, height = frame_size(photo.data)
        except NotNormal as reason:
            faults.append(photo.fault(str(reason)))
        text = label.data.decode("ascii", "backslashreplace")
        number = int(text) if LABEL.fullmatch(text) else UNREADABLE
        if number == UNREADABLE:
            shown = text if len(text) <= 20 else f"{text[:20]}…"
            faults.append(label.fault(f"is {shown!r}, not a label (-1, 0, 1, 2, …)"))
        rows.append((0, photo.offset, len(photo.data), width, height, zlib.crc32(photo.data), photo.key.encode()))
        labels.append(number)
        label_offsets.append(label.offset)
    texts = [f"at offset {offset}: {text}" for offset, text in sorted(faults)]
    if not rows and not texts:
        texts.append("holds no sample")
    return ShardContent(np.array(rows, INDEX_DTYPE), np.array(labels, LABEL_DTYPE), np.array(label_offsets, np.int64),
                        texts, tar.entry)


def _pairs(items: Iterator[TarMember | TarFault]) -> Iterator[tuple[TarMember, TarMember] | TarFault]:
    """Photo and label of each sample; the faults in `items`, and one for each member that has no other half."""
    waiting: TarMember | None = None
    for item in items:
        if isinstance(item, TarFault):
            yield item
        elif waiting and (waiting.key, {waiting.extension, item.extension}) == (item.key, {"jpg", "cls"}):
            yield (waiting, item) if item.extension == "cls" else (item, waiting)
            waiting = None
        else:
            if waiting:
                yield _alone(waiting)
            waiting = item
    if waiting:
        yield _alone(waiting)


def _alone(member: TarMember) -> TarFault:
    other = "cls" if member.extension == "jpg" else "jpg"
    return member.fault(f"has no {member.key}.{other} beside it")
