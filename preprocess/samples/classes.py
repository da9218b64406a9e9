"""Which classes and photos are kept; labels and names of the classes."""
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from arcshard.console import UserError
from arcshard.names import plain_landmark, plain_landmarks, sorted_landmarks
from preprocess.samples.sample_table import COLUMNS, class_ids, hash_order, read_samples
from preprocess.samples.text_table import column_names, read_columns, stripped


class Classes(NamedTuple):
    """Landmark ids of another table; numbered: their positions are that table's labels."""

    source: Path
    landmark_ids: list[str]
    numbered: bool


def read_classes(source: Path, label_column: str) -> Classes:
    """The classes of a sample table, or of a raw table with the column `label_column`."""
    if {*COLUMNS} <= {*column_names(source)}:
        return Classes(source, plain_landmarks(class_ids(read_samples(source)), source), True)
    texts = stripped(read_columns(source, [label_column])[label_column]).cat.categories.tolist()
    return Classes(source, plain_landmarks(texts, source), False)


def of_classes(photos: pd.DataFrame, classes: Classes, source: Path | str) -> pd.DataFrame:
    """The photos of those classes. Raises UserError if there are none; `source` names the table of `photos`."""
    kept = photos[photos["landmark_id"].isin(classes.landmark_ids)]
    if kept.empty:
        raise UserError(f"{classes.source} has no class of {source}: check that --classes-like names a table of the "
                        "same data set")
    return kept


def large_classes(landmarks: pd.Series, min_images: int, source: Path | str) -> list[str]:
    """Landmark ids that occur at least `min_images` times, sorted as all ids are.

    Raises UserError if there are none; `source` names the table.
    """
    counts = landmarks.value_counts()
    counts = counts[counts > 0]
    large = {*counts.index[counts >= min_images]}
    if not large:
        raise UserError(f"--min-images {min_images} leaves no class: the largest of {source} has {counts.max():,} "
                        "images, choose at most that")
    return [text for text in sorted_landmarks(counts.index) if text in large]


def same_labels(large: list[str], classes: Classes) -> list[str]:
    """The landmark ids in the order of `classes`. Raises UserError if one of them is missing from `large`."""
    missing = {*classes.landmark_ids} - {*large}
    if missing:
        raise UserError(f"the labels of {classes.source} cannot be kept: {len(missing):,} of its classes have too few "
                        "images here; lower --min-images, or give the raw table that it was made from")
    return classes.landmark_ids


def labeled(photos: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """The photos of those landmarks in split train, with label (the landmark's position, int64), no landmark_id."""
    landmarks = photos["landmark_id"].astype("category").cat
    labels = pd.Index(landmark_ids).get_indexer(landmarks.categories)[landmarks.codes]
    return photos.drop(columns="landmark_id").assign(label=labels, split="train")[labels >= 0]


def at_most(table: pd.DataFrame, images: int, seed: int) -> pd.DataFrame:
    """At most `images` photos per class, the first by a hash of seed and id, in the order of the table.

    So a photo added to a class of more than `images` replaces at most one other.
    """
    labels = table["label"].to_numpy()
    order = np.lexsort([hash_order(table["id"], seed), labels])
    starts = np.searchsorted(labels[order], labels[order])  # where each photo's class begins
    return table.iloc[np.sort(order[np.arange(len(order)) - starts < images])]


def with_landmarks(table: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """The table with the column landmark_id, missing where the label is -1."""
    return table.assign(landmark_id=pd.Categorical.from_codes(table["label"].to_numpy(), landmark_ids))


NAME_COLUMNS = ("landmark_id", "category")  # of GLDv2's train_label_to_category.csv: an address at Wikimedia Commons


def read_names(path: Path) -> dict[str, str]:
    """Landmark id -> name. Raises UserError if it is no such table, or has a landmark twice."""
    table = read_columns(path, NAME_COLUMNS, plain=NAME_COLUMNS)
    table["landmark_id"] = table["landmark_id"].map(plain_landmark)
    twice = table["landmark_id"].duplicated()
    if twice.any():
        raise UserError(f"{path} has several names for landmark {table['landmark_id'][twice].iloc[0]}: remove all but "
                        "one")
    return dict(zip(table["landmark_id"], table["category"]))


def names_digest(names: Mapping[str, str]) -> str | None:
    """Hex digest of all names; None if there are none."""
    return hashlib.sha256(json.dumps(sorted(names.items())).encode()).hexdigest() if names else None
