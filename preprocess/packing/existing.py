"""The dataset that an output already holds, and which rows of a table --append adds to it."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from arcshard.console import UserError
from arcshard.csv_table import parse_table
from preprocess.packing.output import Output
from preprocess.samples.sample_table import class_ids
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    INDEX_DTYPE,
    MANIFEST,
    NO_LANDMARK,
    REJECTED,
    REJECTED_COLUMNS,
    TRUTHS_COLUMNS,
    index_name,
    truths_name,
)
from shards.manifest import parse_manifest
from shards.rows import stream_rows


class ExistingDataset:
    """The finished dataset in `output`; empty answers to all questions if there is none.

    Raises UserError for a damaged dataset.json, for one of another format version, and later for a damaged table.
    """

    def __init__(self, output: Output):
        self.output = output
        self.manifest: dict[str, Any] | None = None
        if MANIFEST in output.names():
            with output.open(MANIFEST) as f:
                self.manifest = parse_manifest(f.read(), output.url)

    def count(self, split: str, what: str) -> int:
        """The split's samples or shards."""
        return self.manifest["splits"].get(split, {what: 0})[what] if self.manifest else 0

    def files(self) -> dict[str, Any]:
        """dataset.json's entries of files, by name."""
        return dict(self.manifest["files"]) if self.manifest else {}

    def splits(self) -> dict[str, dict[str, int]]:
        """Numbers of samples and shards by split."""
        return {split: dict(counts) for split, counts in self.manifest["splits"].items()} if self.manifest else {}

    def classes(self) -> list[tuple[str, int, str]]:
        """landmark_id, number of packed photos of split train, name; position = label."""
        return [(landmark, int(images), name) for _, landmark, images, name in self._csv(CLASSES, CLASSES_COLUMNS)]

    def rejected(self) -> list[list[str]]:
        """id, split and reason of each rejected photo."""
        return self._csv(REJECTED, REJECTED_COLUMNS)

    def truths(self, split: str) -> dict[str, str]:
        """id -> all labels as text, of the samples that have several."""
        return {id: labels for id, labels in self._csv(truths_name(split), TRUTHS_COLUMNS)}

    def rows(self, name: str, dtype: np.dtype) -> Iterator[np.ndarray]:
        """The rows of an .npy file, many at a time."""
        if name in self.files():
            with self.output.open(name) as f, self._named(name):
                yield from stream_rows(f, dtype)

    def keys(self, split: str) -> np.ndarray:
        """Ids of the split's samples, bytes (N,), in arbitrary order."""
        keys = [rows["key"].copy() for rows in self.rows(index_name(split), INDEX_DTYPE)]
        return np.concatenate([np.empty(0, INDEX_DTYPE["key"]), *keys])

    def _csv(self, name: str, columns: list[str]) -> list[list[str]]:
        if name not in self.files():
            return []
        with self.output.open(name) as f, self._named(name):
            return parse_table(f.read(), columns)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Raise UserError with the file's name for a ValueError in the block."""
        try:
            yield
        except ValueError as error:
            raise UserError(f"{name} of {self.output.url} {error}: run python -m shards verify") from None


# What --append adds: the rows that the dataset lacks, with labels that continue its own.

def rows_to_add(samples: pd.DataFrame, existing: ExistingDataset) -> tuple[pd.DataFrame, list[str]]:
    """The rows of `samples` whose photos the dataset lacks, and all landmark ids, position = label.

    A landmark that the dataset has keeps its label; new ones follow in the order of the table's own labels. Raises
    UserError if a photo would change its split.
    """
    landmark_ids = _merged(class_ids(samples), [landmark for landmark, _, _ in existing.classes()])
    new = pd.Series(True, index=samples.index)
    for split in existing.splits():
        packed = samples["id"].isin(pd.Series(existing.keys(split)).str.decode("ascii"))
        _refuse_moved(samples[packed & (samples["split"] != split)], split)
        new &= ~packed
    rows = samples[new]
    label = pd.Index(landmark_ids).get_indexer(rows["landmark_id"])  # -1 if absent: no landmark
    label[rows["label"] == NO_LANDMARK] = NO_LANDMARK
    return _with_truths(rows, samples, landmark_ids).assign(label=label), landmark_ids


def _merged(new: list[str], old: list[str]) -> list[str]:
    known = set(old)
    return old + [landmark for landmark in new if landmark not in known]


def _refuse_moved(rows: pd.DataFrame, split: str) -> None:
    if len(rows):
        first = rows.iloc[0]
        raise UserError(f"photo {first['id']} is packed in split {split}, but the table has it in {first['split']} "
                        f"({len(rows):,} such rows): --append cannot move photos, keep the splits of the first table")


def _with_truths(rows: pd.DataFrame, samples: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """The rows with `truths` in the dataset's labels."""
    if "truths" not in rows:
        return rows
    position = {landmark: label for label, landmark in enumerate(landmark_ids)}
    numbers = {str(label): str(position[landmark]) for label, landmark in enumerate(class_ids(samples))}
    return rows.assign(truths=[" ".join(numbers[n] for n in text.split()) for text in rows["truths"]])


def with_addition(packing: dict[str, Any], digest: str) -> dict[str, Any]:
    """dataset.json's packing after rows of a table with that digest were added."""
    return packing | {"appended_sha256": [*packing.get("appended_sha256", []), digest]}


def refuse_without_dataset(existing: ExistingDataset) -> None:
    """Raise UserError unless there is a dataset to add to."""
    if existing.manifest is None:
        raise UserError(f"{existing.output.url} has no {MANIFEST}, so --append has no finished dataset to add to: "
                        "leave --append out, or check --out")
