"""Hashes of photos on disk: files of a thousand records, each whole, that the same command takes up again."""
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcshard.files import whole_file

RECORD_DTYPE = np.dtype([("key", "<u8"), ("content", "S16"), ("look", "<u8")])
"""key: which photo, see `photo_key`; content, look: preprocess.twins.photo_hash.PhotoHash. 32 bytes a photo."""


def photo_key(*words: str) -> int:
    """64 bits that stand for a photo in its place; two of a million photos share them once in 37 million tables."""
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest())


def save(folder: Path, records: np.ndarray) -> None:
    """Add RECORD_DTYPE records (N,)."""
    if not len(records):
        return
    name = hashlib.blake2b(records["key"].tobytes(), digest_size=8).hexdigest()
    with whole_file(folder / f"{name}.npy") as f:
        np.save(f, records)


def load(folder: Path) -> np.ndarray:
    """All records, RECORD_DTYPE (N,), in the order of their keys, each key once."""
    records = np.concatenate([np.empty(0, RECORD_DTYPE), *_chunks(folder)])
    _, first = np.unique(records["key"], return_index=True)
    return records[first]


def _chunks(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.npy")):
        yield np.load(path)
