"""Read what a tar really holds: index, labels and .idx are compared with it, or rebuilt from it."""
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from arcshard.untrusted import parse_json
from shards.entry import FileEntry, HashingStream
from shards.format import INDEX_DTYPE, LABEL_DTYPE, NO_LANDMARK, idx_of, is_key, made_key
from shards.jpeg import NotNormal, check_decodes, frame_size
from shards.tar import TarFault, TarMember, members, one_line

JPG, CLS, JSON = "jpg", "cls", "json"
CLS_TEXT = f"{CLS}:text"  # where labels come from: words instead of numbers
NO_LABEL = f".{CLS} beside it"  # how the fault of a photo without a label ends
LABEL = re.compile(r"-1|0|[1-9]\d{0,8}")
UNREADABLE = NO_LANDMARK - 1  # in place of a label that is not valid, or not in the tar
OTHER_PHOTOS = {"png", "webp", "avif", "heic", "jp2", "jxl", "tif", "tiff", "bmp", "gif", "ppm", "pgm", "pbm", "pnm"}

Sample = dict[str, TarMember]
"""Its members by extension."""


@dataclass(frozen=True)
class ShardContent:
    """One tar, read once. n: its samples, in their order."""

    rows: np.ndarray
    """(n,) INDEX_DTYPE, shard 0; width and height are 0 if the photo is not in normal form."""
    labels: np.ndarray
    """(n,) int32, UNREADABLE where the tar has no valid label."""
    names: list[str]
    """(n,) the samples in the words of the tar: their keys, where those can be keys."""
    fields: list[str]
    """(n,) the text of each .cls, or the field of each .json, that was asked for; else ""."""
    idx: str
    """The text that its .idx must have."""
    faults: list[str]
    """A sentence for everything that the format forbids, in the order of the tar."""
    entry: FileEntry
    """Size and sha256 of the tar."""


def read_shard(path: Path, decode: bool = False, label_from: str = CLS) -> ShardContent:
    """Read a tar from end to end, one sample in memory at a time; `decode` also decodes each photo.

    A sample is a run of members with one stem; those that are neither photo nor label are skipped. label_from: "cls"
    for numbers there, "cls:text", "json:FIELD", or anything else for labels that are not in the tar. A file that the
    system cannot read is a fault too.
    """
    try:
        with open(path, "rb") as f:
            return _read(HashingStream(f), decode, label_from)
    except OSError as error:
        return ShardContent(np.empty(0, INDEX_DTYPE), np.empty(0, LABEL_DTYPE), [], [], "",
                            [f"cannot be read ({error.strerror})"], {"size": 0, "sha256": ""})


def _read(tar: HashingStream, decode: bool, label_from: str) -> ShardContent:
    rows: list[tuple[Any, ...]] = []
    labels, names, fields, idx = [], [], [], []
    faults: list[TarFault] = []
    source, _, field = label_from.partition(":")
    for sample in _samples(tar, [kind for kind in (JPG, CLS, JSON) if kind in (JPG, source)], faults):
        photo = sample[JPG]
        width, height = _size(photo, decode, faults)
        key = photo.stem if is_key(photo.stem) else made_key(photo.name)
        rows.append((0, photo.offset, photo.size, width, height, zlib.crc32(photo.data), key.encode()))
        labels.append(_number(sample[CLS], faults) if label_from == CLS else UNREADABLE)
        fields.append(_field(sample[JSON], field, faults) if source == JSON else
                      _text(sample[CLS], faults) if label_from == CLS_TEXT else "")
        names.append(photo.stem)
        idx.append([(kind, member.offset, member.size, key) for kind, member in sample.items() if kind in (JPG, CLS)])
    sentences = [f"at offset {offset}: {text}" for offset, text in sorted(faults)]
    if not rows and not sentences:
        sentences.append("holds no sample")
    return ShardContent(np.array(rows, INDEX_DTYPE), np.array(labels, LABEL_DTYPE), names, fields, idx_of(idx),
                        sentences, tar.entry)


def _samples(tar: HashingStream, needed: list[str], faults: list[TarFault]) -> Iterator[Sample]:
    """The samples that have all members `needed`; a fault for each other one that has a photo or label."""
    for stem, group in groupby(members(tar, needed, faults), attrgetter("stem")):
        sample: Sample = {}
        for member in group:
            if sample.setdefault(member.extension, member) is not member and member.extension in needed:
                faults.append(member.fault(f"is the second {member.extension} of its sample"))
        lacking = [kind for kind in needed if kind not in sample]
        known = [member for kind, member in sample.items() if kind in (JPG, CLS) or kind in OTHER_PHOTOS]
        if not lacking:
            yield sample
        elif known:
            is_other = lacking[0] == JPG and known[0].extension in OTHER_PHOTOS
            faults.append(known[0].fault("is no JPEG" if is_other else
                                         f"has no {one_line(stem)}.{lacking[0]} beside it"))


def _size(photo: TarMember, decode: bool, faults: list[TarFault]) -> tuple[int, int]:
    """Width and height in pixels, 0 if the photo is not in normal form."""
    try:
        if decode:
            check_decodes(photo.data)
        return frame_size(photo.data)
    except NotNormal as reason:
        faults.append(photo.fault(str(reason)))
        return 0, 0


def _number(label: TarMember, faults: list[TarFault]) -> int:
    text = label.data.decode("ascii", "backslashreplace").strip()
    if LABEL.fullmatch(text):
        return int(text)
    shown = text if len(text) <= 20 else f"{text[:20]}…"
    faults.append(label.fault(f"is {shown!r}, not a label (-1, 0, 1, 2, …)"))
    return UNREADABLE


def _text(member: TarMember, faults: list[TarFault]) -> str:
    try:
        return member.data.decode()
    except UnicodeDecodeError:
        faults.append(member.fault("is no text in UTF-8"))
        return ""


def _field(member: TarMember, field: str, faults: list[TarFault]) -> str:
    try:
        value = parse_json(member.data)[field]
        str(value).encode()  # raises ValueError for half a surrogate pair
    except (ValueError, TypeError, KeyError):
        faults.append(member.fault(f"is no JSON object with the field {field}"))
        return ""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    faults.append(member.fault(f"has a {field} that is neither text nor a whole number"))
    return ""
