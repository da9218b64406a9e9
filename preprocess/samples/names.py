"""What landmarks are called: the table that GLDv2 gives beside its photos."""
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd

from arcshard.console import UserError
from preprocess.samples.text_table import read_columns
from shards.format import KEY_PATTERN, MAX_KEY

# An order of photos that depends on seed and id alone: not on the table's order, nor on any library's version.

BATCH = 65536  # ids that are Python texts at a time


def hash_order(ids: pd.Series, seed: int) -> np.ndarray:
    """uint64 (N,): the 8-byte BLAKE2b of "seed:id", big-endian. Sorting by it shuffles; 0.4 µs an id."""
    return np.frombuffer(b"".join(_digests(ids, f"{seed}:".encode())), ">u8").astype(np.uint64)


def _digests(ids: pd.Series, salt: bytes) -> Iterator[bytes]:
    for start in range(0, len(ids), BATCH):
        texts = ids.iloc[start:start + BATCH].tolist()
        yield b"".join([blake2b(salt + text.encode(), digest_size=8).digest() for text in texts])


# Ids for photos that are named by their paths.

EXTENSION = r"\.[^./]*$"
HASH = 16  # characters: with 64 bits, two of 4 M paths that differ share one at odds of 1 to 2 million


def ids_from_paths(paths: pd.Series) -> pd.Series:
    """The id of each path: the path without extension where that is a key and no other path has the same.

    The others become lower-case, with - for each character that a key cannot have, and end in a hash of the
    whole path; of too long a one the end is kept. Equal paths get equal ids.
    """
    stems = paths.str.replace(EXTENSION, "", regex=True)
    made = ~stems.str.fullmatch(KEY_PATTERN) | stems.duplicated(keep=False)
    ids = stems.copy()
    ids[made] = [_made_id(path) for path in paths[made]]
    return ids


def _made_id(path: str) -> str:
    stem = re.sub("[^0-9a-z_-]", "-", re.sub(EXTENSION, "", path).lower())
    return f"{stem[-(MAX_KEY - HASH - 1):]}-{blake2b(path.encode(), digest_size=HASH // 2).hexdigest()}"


COLUMNS = ("landmark_id", "category")  # of GLDv2's train_label_to_category.csv: an address at Wikimedia Commons


def read_names(path: Path) -> dict[str, str]:
    """Landmark id -> name. Raises UserError for anything but such a table, and for a landmark with two rows."""
    table = read_columns(path, COLUMNS, plain=COLUMNS)
    twice = table["landmark_id"].duplicated()
    if twice.any():
        raise UserError(f"a landmark has one name, but {path} has several rows of "
                        f"{table['landmark_id'][twice].iloc[0]}: remove all but one")
    return dict(zip(table["landmark_id"], table["category"]))


def names_digest(names: Mapping[str, str]) -> str | None:
    """Hex digest that changes with any name; None if there are none."""
    return hashlib.sha256(json.dumps(sorted(names.items())).encode()).hexdigest() if names else None
