"""Compare one tar with its index rows, member by member."""
import io
import mmap
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from shards.format import TAR_BLOCK
from shards.idx import offset_after


def tar_faults(path: Path, rows: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    """What in the tar differs from its index rows (INDEX_DTYPE) and labels, both in tar order."""
    with open(path, "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:  # mmap refuses it
            yield "empty"
            return
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as tar:
            yield from _member_faults(tar, rows, labels)


def _member_faults(tar: mmap.mmap, rows: np.ndarray, labels: np.ndarray) -> Iterator[str]:
    offset = TAR_BLOCK  # where the next sample's photo must lie: samples follow each other without a gap
    for row, label in zip(rows, labels.tolist()):
        key, text = row["key"].decode("ascii", "replace"), str(label).encode()
        for fault in _sample_faults(tar, row, key, text, offset):
            yield f"sample {key} at offset {row['offset']}: {fault}"
        offset = offset_after(offset_after(int(row["offset"]), int(row["size"])), len(text))
    if any(tar[offset - TAR_BLOCK:]):
        yield f"holds more behind its last sample, from offset {offset - TAR_BLOCK} on"
    if len(tar) % tarfile.RECORDSIZE or len(tar) < offset - TAR_BLOCK:
        yield f"truncated: {len(tar)} bytes are not whole records of {tarfile.RECORDSIZE} bytes"


def _sample_faults(tar: mmap.mmap, row: np.void, key: str, text: bytes, expected: int) -> Iterator[str]:
    offset, size = int(row["offset"]), int(row["size"])
    if offset != expected:
        yield f"the index row's offset should be {expected}"
        return
    photo, label_offset = tar[offset:offset + size], offset_after(offset, size)
    yield from _header_faults(tar, offset, f"{key}.jpg", size)
    yield from _header_faults(tar, label_offset, f"{key}.cls", len(text))
    if len(photo) != size:
        yield "the tar ends within the photo"
    elif zlib.crc32(photo) != row["crc32"]:
        yield "the photo's bytes do not have the crc32 they were packed with"
    elif (found := _image_size(photo)) != (row["width"], row["height"]):
        yield f"the index row says {row['width']} × {row['height']} pixels, the photo has {found}"
    if (written := tar[label_offset:label_offset + len(text)]) != text:
        yield f"the tar says label {written.decode('ascii', 'replace')!r}, the labels file {text.decode()!r}"


def _header_faults(tar: mmap.mmap, offset: int, name: str, size: int) -> Iterator[str]:
    try:
        header = tarfile.TarInfo.frombuf(tar[offset - TAR_BLOCK:offset], "utf-8", "replace")
    except tarfile.HeaderError as error:
        yield f"the tar header of {name} is damaged ({error})"
        return
    if (header.name, header.size, header.type) != (name, size, tarfile.REGTYPE):
        yield f"the tar header says {header.name!r} of {header.size} bytes, the index {name!r} of {size}"


def _image_size(photo: bytes) -> tuple[int, int] | None:
    try:
        return Image.open(io.BytesIO(photo), formats=["JPEG"]).size
    except OSError:
        return None
