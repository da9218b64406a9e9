"""Write samples to one WebDataset tar and say where they lie."""
import tarfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

import numpy as np

from shards.format import INDEX_DTYPE, KEY_RULE, TAR_BLOCK, is_key


class Sample(NamedTuple):
    """A photo (`data`: a JPEG in normal form of width × height pixels), its key and its label."""

    key: str
    label: int
    data: bytes
    width: int
    height: int


def write_tar(stream: BinaryIO, samples: Iterable[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Write each sample as <key>.jpg and <key>.cls (the label as text); equal samples give equal bytes.

    Returns the index rows (INDEX_DTYPE, shard 0) and labels (int32), one a sample. Raises ValueError for a
    key that is not allowed or not new.
    """
    from webdataset.writer import TarWriter  # here, since it imports torch (3 s), which readers never need

    rows: list[tuple] = []
    labels: list[int] = []
    keys: set[str] = set()
    with TarWriter(stream, encoder=False, mtime=0, compress=False) as tar:
        # TarWriter 1.0.2 takes a format but does not hand it to tarfile, whose default is PAX.
        tar.tarstream.format = tarfile.USTAR_FORMAT
        for sample in samples:
            if not is_key(sample.key) or sample.key in keys:
                raise ValueError(f"a key must be new and have {KEY_RULE}, not {sample.key!r}")
            keys.add(sample.key)
            offset = tar.tarstream.offset + TAR_BLOCK
            # One call a member: within one call TarWriter sorts by extension, which would put .cls first.
            tar.write({"__key__": sample.key, "jpg": sample.data})
            tar.write({"__key__": sample.key, "cls": str(sample.label).encode()})
            rows.append((0, offset, len(sample.data), sample.width, sample.height, zlib.crc32(sample.data),
                         sample.key.encode()))
            labels.append(sample.label)
    return np.array(rows, INDEX_DTYPE), np.array(labels, np.int32)
