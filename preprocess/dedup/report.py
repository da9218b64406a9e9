"""What is done with duplicates: a CSV with one row per pair, lines for the user, a table without them."""
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arcshard.files import whole_file
from preprocess.dedup.pairs import CROWD, Duplicates
from shards.format import NO_LANDMARK

COLUMNS = ["id_a", "split_a", "landmark_a", "id_b", "split_b", "landmark_b", "kind", "distance"]
BATCH = 100_000  # rows turned into text at a time
EXAMPLES = 3  # photos named per reason
BENCHMARK = "benchmark"  # the split of photos whose landmarks are not known


def write_report(path: Path, samples: pd.DataFrame, duplicates: Duplicates) -> None:
    """Write COLUMNS of each pair: by split_a, split_b, kind (exact, near), distance, id_a, id_b.

    samples: the table in the order of its ids, which the pairs' rows refer to.
    """
    with whole_file(path) as f:
        f.write(f"{','.join(COLUMNS)}\n".encode())
        for found in duplicates.values():
            for start in range(0, len(found.pairs), BATCH):
                rows = pair_rows(samples, found.pairs[start:start + BATCH])
                f.write(rows.to_csv(index=False, header=False, lineterminator="\n").encode())


def pair_rows(samples: pd.DataFrame, pairs: np.ndarray) -> pd.DataFrame:
    """COLUMNS of PAIR_DTYPE pairs."""
    a, b = (samples.iloc[pairs[side]] for side in "ab")
    columns = [*(photos[name].to_numpy() for photos in (a, b) for name in ("id", "split", "landmark_id")),
               np.where(pairs["near"], "near", "exact"), pairs["distance"]]
    return pd.DataFrame(dict(zip(COLUMNS, columns)))


def summary(samples: pd.DataFrame, duplicates: Duplicates) -> Iterator[str]:
    """One line per pair of splits with what was found, and another one if there are crowds."""
    for (a, b), found in duplicates.items():
        yield f"{f'{a} and {b}' if a != b else f'within {a}'}: {_counts(samples, found.pairs, a, b)}"
        if found.crowds:
            yield (f"  crowds: {found.crowds:,} pairs of hashes have more than {CROWD:,} pairs of photos each; there "
                   "each photo is listed with one other only")


def failures(samples: pd.DataFrame, reasons: dict[int, str]) -> Iterator[str]:
    """How many photos could not be hashed, why (reasons: row -> reason), and examples of each kind."""
    if reasons:
        yield f"{len(reasons):,} photos could not be hashed and were not compared"
    kinds = pd.Series({row: reasons[row].partition(":")[0] for row in sorted(reasons)}, dtype=str)
    for kind, rows in kinds.groupby(kinds).groups.items():
        examples = ", ".join(samples["id"].iloc[rows[:EXAMPLES]])
        yield f"  {kind}: {len(rows):,} ({examples}{', …' if len(rows) > EXAMPLES else ''})"


def _counts(samples: pd.DataFrame, pairs: np.ndarray, a: str, b: str) -> str:
    if not len(pairs):
        return "no duplicates"
    near, labels = int(pairs["near"].sum()), samples["label"].to_numpy()
    others = int((labels[pairs["a"]] != labels[pairs["b"]]).sum())
    photos = ([(a, np.unique(pairs["a"])), (b, np.unique(pairs["b"]))] if a != b else
              [(a, np.union1d(pairs["a"], pairs["b"]))])
    concerned = " and ".join(f"{len(rows):,} of {split}" for split, rows in photos)
    different = "" if BENCHMARK in (a, b) else f", {others:,} of them with different landmarks"
    return f"{len(pairs) - near:,} exact and {near:,} near pairs{different}; photos concerned: {concerned}"


class Thinning(NamedTuple):
    """Rows of the table that have a duplicate in another split, ascending."""

    dropped: NDArray[np.int64]
    kept: NDArray[np.int64]
    """One photo of each class that would have lost all its photos, so that labels stay 0 … C-1."""


def thin(samples: pd.DataFrame, duplicates: Duplicates, split: str) -> Thinning:
    """Which photos of `split` to drop and to keep. samples: the table that the pairs' rows refer to."""
    rows = np.unique(np.concatenate([np.empty(0, np.int32), *_rows_of(duplicates, split)]))
    labels = samples["label"].to_numpy()
    others = np.delete(labels, rows)
    lost, first = np.unique(labels[rows], return_index=True)
    is_last = ~np.isin(lost, others) & (lost != NO_LANDMARK)
    kept = np.sort(rows[first[is_last]])
    return Thinning(np.setdiff1d(rows, kept), kept)


def _rows_of(duplicates: Duplicates, split: str) -> list[NDArray[np.int32]]:
    """Rows of the split that have a duplicate in another split."""
    return [found.pairs["a" if split == a else "b"] for (a, b), found in duplicates.items()
            if a != b and split in (a, b)]
