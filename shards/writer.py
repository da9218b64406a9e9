"""Write samples to one WebDataset tar, and index rows that tell where they are."""
import tarfile
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np

from shards.format import INDEX_DTYPE, KEY_RULE, TAR_BLOCK, is_key


class Sample(NamedTuple):
    """A photo (`data`: a JPEG in normal form of width × height pixels), its key and its label."""

    key: str
    label: int
    data: bytes
    width: int
    height: int


class Stream(Protocol):
    """What a tar is written to: a binary file, or HashingStream around one."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""


def write_tar(stream: Stream, samples: Iterable[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Write each sample as <key>.jpg and <key>.cls (the label as text); equal samples give equal bytes.

    The bytes are those of webdataset.TarWriter 1.0.2 with mtime 0 in USTAR format, which is not used because it
    imports torch (3 s and 0.5 GB in each packing process). `stream` starts empty. Returns the index rows
    (INDEX_DTYPE, shard 0) and labels (int32), one a sample. Raises ValueError for a key that is not allowed or
    not new.
    """
    rows: list[tuple[Any, ...]] = []
    labels: list[int] = []
    keys: set[str] = set()
    at = 0
    for key, label, data, width, height in samples:
        if not is_key(key) or key in keys:
            raise ValueError(f"the key {key!r} is used already, or is not {KEY_RULE}")
        keys.add(key)
        text = str(label).encode()
        rows.append((0, at + TAR_BLOCK, len(data), width, height, zlib.crc32(data), key.encode()))
        labels.append(label)
        stream.write(_header(f"{key}.jpg", len(data)))
        stream.write(data)
        end = b"".join((_padding(len(data)), _header(f"{key}.cls", len(text)), text, _padding(len(text))))
        stream.write(end)
        at += TAR_BLOCK + len(data) + len(end)
    stream.write(bytes(2 * TAR_BLOCK + -(at + 2 * TAR_BLOCK) % tarfile.RECORDSIZE))
    return np.array(rows, INDEX_DTYPE), np.array(labels, np.int32)


def _blank_header() -> bytes:
    """A ustar header with webdataset's mode and owner, dated 0."""
    info = tarfile.TarInfo()
    info.mode, info.uname, info.gname = 0o444, "bigdata", "bigdata"
    return info.tobuf(tarfile.USTAR_FORMAT)


BLANK = _blank_header()
NAME, SIZE, CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)  # POSIX.1-1988, ustar


def _header(name: str, size: int) -> bytes:
    """BLANK with a name of at most 100 bytes and a size: 3 µs, where TarInfo.tobuf takes 24."""
    header = bytearray(BLANK)
    header[NAME] = name.encode().ljust(100, b"\0")
    header[SIZE] = b"%011o\0" % size
    header[CHECKSUM] = b" " * 8  # as which it counts in its own sum
    header[CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def _padding(size: int) -> bytes:
    """Zeros that fill a member's last block."""
    return bytes(-size % TAR_BLOCK)
