"""What a tar really holds: the truth that index, labels and idx are compared with, or rebuilt from."""
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.format import INDEX_DTYPE, NO_LANDMARK, TAR_BLOCK, idx_text
from shards.jpeg import NotNormal, check_decodes, frame_size
from shards.manifest import FileEntry, HashingStream
from shards.tar import TarFault, TarMember, members

LABEL = re.compile(r"-1|0|[1-9]\d{0,8}")
UNREADABLE = NO_LANDMARK - 1  # stands for a label that is none


@dataclass(frozen=True)
class ShardContent:
    """One tar, read once. n: its samples, in their order."""

    rows: np.ndarray
    """(n,) INDEX_DTYPE, shard 0; width and height 0 where the photo is not in the form."""
    labels: np.ndarray
    """(n,) int32, UNREADABLE where the tar has no label."""
    label_offsets: np.ndarray
    """(n,) int64, where each label's bytes begin in the tar."""
    faults: list[str]
    """What the format forbids, in the order of the tar."""
    entry: FileEntry
    """Size and sha256 of the tar."""

    @property
    def idx(self) -> bytes:
        """What its .idx must be."""
        return idx_text(self.rows, self.labels, self.label_offsets).encode()


def read_shard(path: Path, decode: bool = False) -> ShardContent:
    """Read a tar from end to end, one member in memory at a time; `decode` also decodes each photo.

    A file that the system cannot read is a fault too.
    """
    try:
        with open(path, "rb") as f:
            return _read(HashingStream(f), decode)
    except OSError as error:
        nothing = np.empty(0, np.int64)
        return ShardContent(np.empty(0, INDEX_DTYPE), nothing.astype(np.int32), nothing,
                            [f"cannot be read ({error.strerror})"], {"size": 0, "sha256": ""})


def _read(tar: HashingStream, decode: bool) -> ShardContent:
    faults: list[TarFault] = []
    rows: list[tuple[Any, ...]] = []
    labels: list[tuple[int, int]] = []
    for photo, label in _pairs(members(tar), faults):
        rows.append((0, photo.offset, len(photo.data), *_photo_size(photo, decode, faults),
                     zlib.crc32(photo.data), photo.key.encode()))
        labels.append((_label(label, faults), label.offset))
    texts = [f"at offset {offset}: {text}" for offset, text in sorted(faults)]
    if not rows and not texts:
        texts.append("holds no sample")
    numbers, offsets = np.array(labels, np.int64).reshape(-1, 2).T
    return ShardContent(np.array(rows, INDEX_DTYPE), numbers.astype(np.int32), offsets, texts,
                        {"size": tar.size, "sha256": tar.sha256})


def _pairs(found: Iterator[TarMember | TarFault], faults: list[TarFault]) -> Iterator[tuple[TarMember, TarMember]]:
    """Photo and label of each sample; what is no pair goes to `faults`."""
    waiting: TarMember | None = None
    for item in found:
        if isinstance(item, TarFault):
            faults.append(item)
        elif waiting and (waiting.key, {waiting.extension, item.extension}) == (item.key, {"jpg", "cls"}):
            yield (waiting, item) if item.extension == "cls" else (item, waiting)
            waiting = None
        else:
            faults += _unpaired(waiting)
            waiting = item
    faults += _unpaired(waiting)


def _unpaired(member: TarMember | None) -> list[TarFault]:
    if member is None:
        return []
    other = "cls" if member.extension == "jpg" else "jpg"
    return [TarFault(member.offset - TAR_BLOCK, f"member {member.name} has no {member.key}.{other} beside it")]


def _photo_size(photo: TarMember, decode: bool, faults: list[TarFault]) -> tuple[int, int]:
    """Width and height; (0, 0) for a photo that is not in the form, which goes to `faults`."""
    try:
        if decode:
            check_decodes(photo.data)
        return frame_size(photo.data)
    except NotNormal as reason:
        faults.append(TarFault(photo.offset - TAR_BLOCK, f"member {photo.name} {reason}"))
        return 0, 0


def _label(label: TarMember, faults: list[TarFault]) -> int:
    text = label.data.decode("ascii", "backslashreplace")
    if LABEL.fullmatch(text):
        return int(text)
    shown = text if len(text) <= 20 else f"{text[:20]}…"
    faults.append(TarFault(label.offset - TAR_BLOCK,
                        f"member {label.name} must be a label -1, 0, 1, 2, …, not {shown!r}"))
    return UNREADABLE
