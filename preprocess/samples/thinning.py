"""Drop the photos of one split that have a duplicate in another."""
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from preprocess.twins.duplicate_pairs import Duplicates
from shards.format import NO_LANDMARK


class Thinning(NamedTuple):
    """Rows of the table that have a duplicate in another split, ascending."""

    dropped: NDArray[np.int64]
    kept: NDArray[np.int64]
    """One of each class that would have lost all photos of the table, so that labels stay 0 … C-1."""


def thin(samples: pd.DataFrame, duplicates: Duplicates, split: str) -> Thinning:
    """Which photos of `split` to drop. samples: the table that the pairs' rows refer to."""
    rows = np.unique(np.concatenate([np.empty(0, np.int32), *_rows_of(duplicates, split)]))
    labels = samples["label"].to_numpy()
    others = np.delete(labels, rows)
    lost, first = np.unique(labels[rows], return_index=True)
    is_last = ~np.isin(lost, others) & (lost != NO_LANDMARK)
    kept = np.sort(rows[first[is_last]])
    return Thinning(np.setdiff1d(rows, kept), kept)


def _rows_of(duplicates: Duplicates, split: str) -> list[NDArray[np.int32]]:
    """Rows of that split in pairs with another one."""
    return [found.pairs["a" if split == a else "b"] for (a, b), found in duplicates.items()
            if a != b and split in (a, b)]
