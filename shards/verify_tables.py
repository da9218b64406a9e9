"""What can be wrong with the files that bind the shards: index, labels, classes, truths."""
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shards.csv_table import read_table
from shards.format import CLASSES_COLUMNS, MANIFEST, NO_LANDMARK, index_name, labels_name
from shards.tables import Tables, repeated_keys
from shards.truths import read_truths


def count_faults(tables: Tables, samples: int) -> Iterator[str]:
    """Index and labels that have not `samples` rows."""
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
            yield f"{labels_name(tables.split)}: {wrong.sum()} labels are not -1 to {num_classes - 1}"


def key_faults(tables: list[Tables]) -> Iterator[str]:
    """Keys that name several samples, in one split or in several."""
    first: dict[bytes, str] = {}
    for key, table, row in repeated_keys(tables):
        name = index_name(table.split)
        if key in first:
            yield f"{name}: row {row} has the key {key.decode('ascii', 'backslashreplace')}, which {first[key]} has too"
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
    if len(rows) != num_classes:
        yield f"{path.name}: has {len(rows)} classes, {MANIFEST} counts {num_classes}"
    if wrong := [row[0] for number, row in enumerate(rows) if row[0] != str(number)]:
        yield f"{path.name}: its labels must be 0, 1, 2, … in order, not {wrong[0]!r}"
    if len({row[1] for row in rows}) < len(rows):
        yield f"{path.name}: it has a landmark_id twice"
    if train is not None:
        yield from _image_count_faults(path.name, [row[2] for row in rows], train)


def truth_faults(path: Path, tables: Tables, num_classes: int) -> Iterator[str]:
    """What SPLIT.truths.csv gets wrong about the split's samples; the first of each kind."""
    try:
        truths = read_truths(path)
    except ValueError as error:
        yield f"{path.name}: {error}"
        return
    for key, labels in truths.items():
        if max(labels) >= num_classes or len({*labels}) < len(labels):
            yield f"{path.name}: sample {key} must have labels of 0 to {num_classes - 1}, each once, not {labels}"
            break
    if truths and tables.index and tables.labels is not None and tables.index.rows == len(tables.labels):
        yield from _own_label_faults(path.name, truths, tables.labels_by_key({*truths}))


def _own_label_faults(name: str, truths: dict[str, list[int]], own: dict[str, int]) -> Iterator[str]:
    if unknown := truths.keys() - own.keys():
        yield f"{name}: the split has no sample {min(unknown)}"
    if wrong := [key for key, label in own.items() if truths[key][0] != label]:
        key = min(wrong)
        yield f"{name}: the first label of sample {key} must be its own, {own[key]}, not {truths[key][0]}"


def _image_count_faults(name: str, counts: list[str], labels: np.ndarray) -> Iterator[str]:
    images = np.bincount(labels[(labels >= 0) & (labels < len(counts))], minlength=len(counts)).tolist()
    for label, (count, right) in enumerate(zip(counts, images)):
        if count != str(right):
            yield f"{name}: says that class {label} has {count!r} images, split train has {right}"
            return
