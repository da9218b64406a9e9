"""Which classes and photos stay, and the classes' labels."""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arcshard.console import UserError
from preprocess.dedup.pairs import Duplicates
from preprocess.samples.names import hash_order
from preprocess.samples.sample_table import COLUMNS, class_ids, read_samples
from preprocess.samples.text_table import column_names, read_columns
from shards.format import NO_LANDMARK

# Drop the photos of one split that have a duplicate in another.


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


WHOLE_NUMBER = "-?[0-9]{1,99}"


class Classes(NamedTuple):
    """Landmark ids of another table; `numbered`: its labels are their positions."""

    source: Path
    landmark_ids: list[str]
    numbered: bool


def read_classes(source: Path, label_column: str) -> Classes:
    """The classes of a sample table, or of a raw one that has `label_column`."""
    if {*COLUMNS} <= {*column_names(source)}:
        return Classes(source, class_ids(read_samples(source)), True)
    return Classes(source, read_columns(source, [label_column])[label_column].cat.categories.tolist(), False)


def of_classes(photos: pd.DataFrame, classes: Classes, source: Path | str) -> pd.DataFrame:
    """The photos of those classes. Raises UserError if there is none; `source` names the table of `photos`."""
    kept = photos[photos["landmark_id"].isin(classes.landmark_ids)]
    if kept.empty:
        raise UserError(f"--classes-like must name a table with classes of {source}, but {classes.source} has none of "
                        "them: check that both are of one data set")
    return kept


def large_classes(landmarks: pd.Series, min_images: int, source: Path | str) -> list[str]:
    """Landmark ids that occur at least `min_images` times, sorted: as numbers if all are, else as texts.

    Raises UserError if there is none or an id is empty; `source` names the table.
    """
    if (landmarks == "").any():
        raise UserError(f"each image of {source} must have a landmark_id, but "
                        f"{(landmarks == '').sum():,} have none: remove those rows")
    counts = landmarks.value_counts()
    counts = counts[counts > 0]
    large = counts.index[counts >= min_images]
    if not len(large):
        raise UserError(f"--min-images must leave a class, but {min_images} leaves none: the largest of "
                        f"{source} has {counts.max():,} images, choose at most that")
    numbers = counts.index.astype("str").str.fullmatch(WHOLE_NUMBER).all()
    return sorted(large, key=(lambda text: (int(text), text)) if numbers else None)


def same_labels(large: list[str], classes: Classes) -> list[str]:
    """The landmark ids in the order of `classes`. Raises UserError if one of them is not among `large`."""
    missing = {*classes.landmark_ids} - {*large}
    if missing:
        raise UserError(f"the labels of {classes.source} can be kept only if each of its classes stays, but "
                        f"{len(missing):,} have too few images here: lower --min-images, or give the raw table that it "
                        "was made of")
    return classes.landmark_ids


def labeled(photos: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """The photos of those landmarks, with label (the landmark's position, int64) for landmark_id, split train."""
    landmarks = photos["landmark_id"].astype("category").cat
    labels = pd.Index(landmark_ids).get_indexer(landmarks.categories)[landmarks.codes]
    return photos.drop(columns="landmark_id").assign(label=labels, split="train")[labels >= 0]


def at_most(table: pd.DataFrame, images: int, seed: int) -> pd.DataFrame:
    """At most that many photos a class: the first by a hash of seed and id, in the order of the table.

    So a photo that is added to a class of more than `images` takes the place of one other, or of none.
    """
    labels = table["label"].to_numpy()
    order = np.lexsort([hash_order(table["id"], seed), labels])
    starts = np.searchsorted(labels[order], labels[order])  # where each one's class begins
    return table.iloc[np.sort(order[np.arange(len(order)) - starts < images])]


def with_landmarks(table: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """The table with a column landmark_id, missing where the label is -1."""
    return table.assign(landmark_id=pd.Categorical.from_codes(table["label"].to_numpy(), landmark_ids))
