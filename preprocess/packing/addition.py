"""What `--append` adds to a finished dataset: the rows that it lacks, with labels that go on from its own."""
from typing import Any

import pandas as pd

from arcshard.console import UserError
from preprocess.packing.before import Before
from preprocess.samples.sample_table import class_ids
from shards.format import MANIFEST, NO_LANDMARK


def added_rows(samples: pd.DataFrame, before: Before) -> tuple[pd.DataFrame, list[str]]:
    """The rows of `samples` whose photos the dataset lacks, and all landmark ids, position = label.

    A landmark that the dataset knows keeps its label there, new ones follow in the table's order; the table's own
    labels only say that order. Raises UserError if a photo would change its split.
    """
    landmark_ids = _merged_landmarks(class_ids(samples), [landmark for landmark, _, _ in before.classes()])
    new = pd.Series(True, index=samples.index)
    for split in before.splits():
        packed = samples["id"].isin(pd.Series(before.keys(split)).str.decode("ascii"))
        _refuse_moved(samples[packed & (samples["split"] != split)], split)
        new &= ~packed
    rows = samples[new]
    label = pd.Index(landmark_ids).get_indexer(rows["landmark_id"])  # -1 if absent: no landmark
    label[rows["label"] == NO_LANDMARK] = NO_LANDMARK
    return _relabelled(rows, samples, landmark_ids).assign(label=label), landmark_ids


def _merged_landmarks(new: list[str], old: list[str]) -> list[str]:
    known = set(old)
    return old + [landmark for landmark in new if landmark not in known]


def _refuse_moved(rows: pd.DataFrame, split: str) -> None:
    if len(rows):
        first = rows.iloc[0]
        raise UserError(f"a packed photo stays in its split, but {first['id']} is packed in {split} and the table has "
                        f"it in {first['split']} ({len(rows):,} such rows): keep the splits of the first table")


def _relabelled(rows: pd.DataFrame, samples: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """The rows with `truths` in the dataset's labels."""
    if "truths" not in rows:
        return rows
    own = class_ids(samples)
    position = {landmark: label for label, landmark in enumerate(landmark_ids)}
    numbers = {str(label): str(position[landmark]) for label, landmark in enumerate(own)}
    return rows.assign(truths=[" ".join(numbers[n] for n in text.split()) for text in rows["truths"]])


def with_addition(packing: dict[str, Any], digest: str) -> dict[str, Any]:
    """dataset.json's packing after rows of a table with that digest were added."""
    return packing | {"appended_sha256": [*packing.get("appended_sha256", []), digest]}


def refuse_without_dataset(before: Before) -> None:
    """Raise UserError unless there is a dataset to add to."""
    if before.manifest is None:
        raise UserError(f"--append adds to a finished dataset, but {before.output.url} has no {MANIFEST}: leave "
                        "--append out, or check --out")
