"""Faults of the files that belong to no single shard: index, labels, classes, truths.

Each function yields one sentence per fault, the file's name first.
"""
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcshard.csv_table import read_table
from shards.format import CLASSES_COLUMNS, MANIFEST, NO_LANDMARK, index_name, key_text, labels_name
from shards.tables import Tables, read_truths, repeated_keys


def count_faults(tables: Tables, samples: int) -> Iterator[str]:
    """Index and labels that do not have `samples` rows."""
    rows = {index_name(tables.split): None if tables.index is None else tables.index.rows,
            labels_name(tables.split): None if tables.labels is None else len(tables.labels)}
    for name, count in rows.items():
        if count not in (None, samples):
            yield f"{name}: has {count} rows, {MANIFEST} counts {samples} samples"


def label_faults(tables: Tables, num_classes: int) -> Iterator[str]:
    """Labels that are no class."""
    if tables.labels is not None:
        wrong = (tables.labels < NO_LANDMARK) | (tables.labels >= num_classes)
        if wrong.any():
            yield f"{labels_name(tables.split)}: {wrong.sum()} labels are outside -1 to {num_classes - 1}"


def key_faults(tables: list[Tables]) -> Iterator[str]:
    """Keys that name several samples, in one split or in several."""
    first: dict[bytes, str] = {}
    for key, table, row in repeated_keys(tables):
        name = index_name(table.split)
        if key in first:
            yield f"{name}: row {row} has the key {key_text(key)}, which {first[key]} has too"
        first.setdefault(key, f"row {row} of {name}")


def class_faults(path: Path, train: np.ndarray | None, num_classes: int) -> Iterator[str]:
    """What classes.csv gets wrong: labels, landmark ids, the number of a class's train photos; the first of each.

    train: labels of split train; None: they are not sound enough to be counted.
    """
    if not path.is_file():
        return
    try:
        rows = read_table(path, CLASSES_COLUMNS)
    except ValueError as error:
        yield f"{path.name}: {error}"
        return
    labels, landmarks, counts = ([row[column] for row in rows] for column in range(3))
    if len(rows) != num_classes:
        yield f"{path.name}: has {len(rows)} classes, {MANIFEST} counts {num_classes}"
    if wrong := [number for number, label in enumerate(labels) if label != str(number)]:
        yield f"{path.name}: has label {labels[wrong[0]]!r} where {wrong[0]} belongs"
    if len({*landmarks}) < len(landmarks):
        yield f"{path.name}: has a landmark_id twice"
    if train is not None:
        images = np.bincount(train[(train >= 0) & (train < len(rows))], minlength=len(rows)).tolist()
        if wrong := [label for label, count in enumerate(counts) if count != str(images[label])]:
            yield (f"{path.name}: counts {counts[wrong[0]]!r} images of class {wrong[0]}, split train has "
                   f"{images[wrong[0]]}")


def truth_faults(path: Path, tables: Tables, num_classes: int) -> Iterator[str]:
    """What SPLIT.truths.csv gets wrong about the split's samples; the first of each kind."""
    try:
        truths = read_truths(path)
    except ValueError as error:
        yield f"{path.name}: {error}"
        return
    if wrong := [key for key, labels in truths.items() if max(labels) >= num_classes or len({*labels}) < len(labels)]:
        yield (f"{path.name}: sample {wrong[0]!r} has the labels {truths[wrong[0]]}, not several of 0 to "
               f"{num_classes - 1}")
    if not truths or tables.index is None or tables.labels is None or tables.index.rows != len(tables.labels):
        return
    own = tables.labels_by_key({*truths})
    if unknown := truths.keys() - own.keys():
        yield f"{path.name}: the split has no sample {min(unknown)!r}"
    if wrong := [key for key, label in own.items() if truths[key][0] != label]:
        key = min(wrong)
        yield f"{path.name}: the first label of sample {key!r} is {truths[key][0]}, not its own, {own[key]}"
