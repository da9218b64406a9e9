"""The classes of adopted tars: from a CSV file, or the labels' own numbers."""
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcshard.console import UserError

MAX_CLASSES = 10_000_000  # labels beyond are no numbers of classes: a head of 512 float32 each takes 20 GB
NEEDED = {"label", "landmark_id"}


def own_numbers(num_classes: int) -> list[tuple[str, str]]:
    """landmark_id and name of each label where nobody has named them."""
    return [(str(label), "") for label in range(num_classes)]


def read_classes(path: Path) -> list[tuple[str, str]]:
    """landmark_id and name of each label, from a CSV file with columns label, landmark_id and, if there, name.

    Raises UserError unless its labels are 0 … C-1 and its landmark ids differ.
    """
    rows = sorted(_rows(path))
    labels, ids = [row[0] for row in rows], [row[1] for row in rows]
    if labels != [*range(len(rows))]:
        wrong = next(number for number, label in enumerate(labels) if label != number)
        raise UserError(f"the labels of --classes must be 0, 1, 2, …, each once, but row {wrong + 1} of {path} in the "
                        f"order of its labels has {labels[wrong]}: number the classes so")
    if len({*ids}) < len(ids):
        raise UserError(f"a landmark_id must have one label, but {path} has one in several rows: keep one of them")
    return [(landmark, name) for _, landmark, name in rows]


def class_rows(names: list[tuple[str, str]], train_labels: np.ndarray) -> Iterator[tuple[int, str, int, str]]:
    """Rows of classes.csv."""
    images = np.bincount(train_labels[train_labels >= 0], minlength=len(names)).tolist()
    return ((label, landmark, images[label], name) for label, (landmark, name) in enumerate(names))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """label, landmark_id, name."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            table = csv.DictReader(f)
            if missing := NEEDED - {*(table.fieldnames or [])}:
                raise UserError(f"{path} must have the columns label and landmark_id, but lacks "
                                f"{', '.join(sorted(missing))}: check the path")
            for row in table:
                if not row["landmark_id"]:
                    raise ValueError(f"label {row['label']} has no landmark_id")
                yield int(row["label"] or ""), row["landmark_id"], row.get("name") or ""
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: check --classes") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} must be a CSV file in UTF-8 whose labels are numbers, but is not ({error}): "
                        "mend it") from None
