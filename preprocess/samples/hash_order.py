"""An order of photos that depends on seed and id alone: not on the table's order, nor on any library's version."""
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import pandas as pd

BATCH = 65536  # ids that are Python texts at a time


def hash_order(ids: pd.Series, seed: int) -> np.ndarray:
    """uint64 (N,): the 8-byte BLAKE2b of "seed:id", big-endian. Sorting by it shuffles; 0.4 µs an id."""
    return np.frombuffer(b"".join(_digests(ids, f"{seed}:".encode())), ">u8").astype(np.uint64)


def _digests(ids: pd.Series, salt: bytes) -> Iterator[bytes]:
    for start in range(0, len(ids), BATCH):
        texts = ids.iloc[start:start + BATCH].tolist()
        yield b"".join([blake2b(salt + text.encode(), digest_size=8).digest() for text in texts])
