"""Ids for photos that are named by their paths."""
import re
from hashlib import blake2b

import pandas as pd

from shards.format import KEY_PATTERN, MAX_KEY

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
