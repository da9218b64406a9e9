"""The files of a dataset that bind its shards: index, labels, truths, classes, rejects.

Arrays are written a shard at a time, after what was there before: memory does not grow with the photos.
"""
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcshard.files import whole_file
from preprocess.packing.before import Before
from preprocess.packing.output import Output
from preprocess.packing.shard_plan import LABELS, ROWS
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    INDEX_DTYPE,
    NO_LANDMARK,
    REJECTED,
    REJECTED_COLUMNS,
    TRUTHS_COLUMNS,
    UNFINISHED,
    index_name,
    labels_name,
    truths_name,
)
from shards.tables import write_table


class Shard(NamedTuple):
    """A kept shard: its split, the name it was kept under, what its part.json says."""

    split: str
    name: str
    part: dict[str, Any]


class Contents(NamedTuple):
    """What the sample table says of a dataset, beside where its photos are."""

    landmark_ids: list[str]
    """Position = label; those of the dataset that is added to come first."""
    names: Mapping[str, str]
    """Of landmarks, by id."""
    truths: dict[str, dict[str, str]]
    """By split: photo id -> all its labels as text, for photos that have more than one."""
    retried: set[str]
    """Photos rejected before that this call tried again."""


def write_tables(folder: Path, filled: dict[str, list[Shard]], shards: list[Shard], contents: Contents,
                 before: Before) -> None:
    """Write the tables of `before` with the kept `shards` added into `folder`.

    filled: the shards that hold a sample, by split.
    """
    for split, of_split in filled.items():
        _write_array(folder, index_name(split), INDEX_DTYPE, of_split, before, _rows)
        _write_array(folder, labels_name(split), np.dtype("<i4"), of_split, before, _labels)
    write_table(folder / CLASSES, CLASSES_COLUMNS, _classes(filled.get("train", []), contents, before))
    rejected = {key: (split, reason) for key, split, reason in before.rejected() if key not in contents.retried}
    rejected |= {key: (s.split, reason) for s in shards for key, reason in s.part["rejected"].items()}
    write_table(folder / REJECTED, REJECTED_COLUMNS, sorted((key, *why) for key, why in rejected.items()))
    for split in filled:
        truths = dict(before.rows(truths_name(split))) | contents.truths.get(split, {})
        if packed := sorted((key, labels) for key, labels in truths.items() if key not in rejected):
            write_table(folder / truths_name(split), TRUTHS_COLUMNS, packed)


def _write_array(folder: Path, name: str, dtype: np.dtype, shards: list[Shard], before: Before,
                 read: Callable[[Output, int, Shard], np.ndarray]) -> None:
    split = shards[0].split
    samples = before.count(split, "samples") + sum(shard.part["samples"] for shard in shards)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (samples,)}
    with whole_file(folder / name) as f:
        np.lib.format.write_array_header_1_0(f, header)
        before.copy_array(name, f)
        for number, shard in enumerate(shards, start=before.count(split, "shards")):
            f.write(read(before.output, number, shard).astype(dtype).tobytes())


def _rows(output: Output, number: int, shard: Shard) -> np.ndarray:
    rows = _load(output, shard, ROWS)
    rows["shard"] = number
    return rows


def _labels(output: Output, number: int, shard: Shard) -> np.ndarray:
    return _load(output, shard, LABELS)


def _load(output: Output, shard: Shard, name: str) -> np.ndarray:
    with output.open(f"{UNFINISHED}/{shard.name}/{name}") as f:
        return np.load(io.BytesIO(f.read()))


def _classes(train: list[Shard], contents: Contents, before: Before) -> list[tuple[int, str, int, str]]:
    """Rows of classes.csv; images counts the packed photos of split train."""
    num_classes = len(contents.landmark_ids)
    images = np.zeros(num_classes, np.int64)
    names = [contents.names.get(landmark, "") for landmark in contents.landmark_ids]
    for label, (_, count, name) in enumerate(before.classes()):
        images[label], names[label] = count, name or names[label]
    for shard in train:
        labels = _labels(before.output, 0, shard)
        images += np.bincount(labels[labels != NO_LANDMARK], minlength=num_classes)
    return list(zip(range(num_classes), contents.landmark_ids, images.tolist(), names))
