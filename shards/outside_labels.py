"""The CSV files that adopt may be given, and labels that its tars do not have as .cls."""
import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcshard.console import UserError
from arcshard.names import MISSING, plain_landmark, plain_landmarks, sorted_landmarks
from shards.content import CLS_TEXT, JSON, ShardContent
from shards.entry import FileEntry, file_entry
from shards.format import LABEL_DTYPE, NO_LANDMARK, labels_name
from shards.rows import new_rows
from shards.tar import one_line, split_name

Names = list[tuple[str, str]]
"""landmark_id and name of each class, position = label."""


def read_classes(path: Path) -> Names:
    """From a CSV file with columns label, landmark_id and, if there, name, in any order among any others.

    Raises UserError unless its labels are 0 … C-1 and its landmark ids differ.
    """
    table = _rows(path, "--classes", {"label", "landmark_id"})
    try:
        rows = sorted((int(row["label"]), plain_landmark(row["landmark_id"]), row.get("name", "")) for row in table)
    except ValueError as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 whose labels are numbers ({error}): correct it") from None
    if wrong := [number for number, row in enumerate(rows) if row[0] != number]:
        raise UserError(f"{path} has label {rows[wrong[0]][0]} where {wrong[0]} belongs: number the classes 0, 1, 2, "
                        "…, each once")
    ids = [landmark for _, landmark, _ in rows]
    if "" in ids:
        raise UserError(f"{path} has no landmark_id for label {ids.index('')}: add it")
    if len({*ids}) < len(ids):
        raise UserError(f"{path} has a landmark_id in several rows: keep one of them")
    return [(landmark, name) for _, landmark, name in rows]


class OutsideLabels:
    """Landmark ids from each sample's .cls ("cls:text") or a field of its .json ("json:FIELD"), or from a CSV by name.

    The names of a CSV are those of the samples in the tar.

    Raises UserError for a CSV that cannot be read, lacks the columns key and landmark_id, or contradicts itself.
    """

    def __init__(self, source: str):
        self.source = source
        in_tar = source == CLS_TEXT or source.startswith(f"{JSON}:")
        self._by_name = None if in_tar else _read_labels(Path(source))
        self._codes = {str(NO_LANDMARK): NO_LANDMARK}  # of each landmark id, numbered as they come
        self._labels: dict[str, list[np.ndarray]] = {}  # of each split, as codes

    def judge(self, split: str, content: ShardContent) -> list[str]:
        """Take the labels of the split's next shard. Returns its faults, or those of samples without a label."""
        texts = content.fields
        if self._by_name is not None:
            texts = [self._by_name.get(name, "") for name in content.names]
        codes = [self._codes.setdefault(text.strip(), len(self._codes) - 1) for text in texts]
        self._labels.setdefault(split, []).append(np.array(codes, LABEL_DTYPE))
        return content.faults or [f"sample {one_line(name)} has no landmark in {self.source}"
                                  for name, text in zip(content.names, texts) if text.strip() in {*MISSING} - {"-1"}]

    def write(self, folder: Path, names: Names | None) -> tuple[Names, dict[str, FileEntry]]:
        """Write the labels of all splits; the names of the classes, and the entries of the files.

        names: the classes of --classes; None: they are numbered as clean.py numbers them. Raises UserError for a
        landmark that `names` lacks, or two that differ by white space alone.
        """
        texts = [*self._codes][1:]
        plain = plain_landmarks(texts, self.source)
        if names is None:
            spelled = dict(zip(plain, texts))
            names = [(id, spelled[id] if spelled[id] != id else "") for id in sorted_landmarks(plain)]
        labels = {landmark: label for label, (landmark, _) in enumerate(names)}
        if unknown := [landmark for landmark in plain if landmark not in labels]:
            raise UserError(f"--classes lacks the landmark {unknown[0]!r} of {self.source} ({len(unknown):,} such "
                            "landmarks): add them")
        of_code = np.array([*(labels[landmark] for landmark in plain), NO_LANDMARK], LABEL_DTYPE)
        entries = {}
        for split, codes in self._labels.items():
            path = folder / labels_name(split)
            with new_rows(path, LABEL_DTYPE) as append:
                append(of_code[np.concatenate(codes)])  # code -1 takes the last
            entries[path.name] = file_entry(path)
        return names, entries


def _read_labels(path: Path) -> dict[str, str]:
    labels: dict[str, str] = {}
    for row in _rows(path, "--label-from", {"key", "landmark_id"}):
        key, landmark = split_name(row["key"])[0], sys.intern(row["landmark_id"])
        if labels.setdefault(key, landmark) != landmark:
            raise UserError(f"{path} has the landmarks {labels[key]!r} and {landmark!r} for the key {key!r}: remove "
                            "one of the rows")
    return labels


def _rows(path: Path, option: str, needed: set[str]) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header; fields that a row lacks are empty."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            table = csv.DictReader(f, restval="", skipinitialspace=True)
            if missing := needed - {*(table.fieldnames or [])}:
                raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}: give {option} a CSV with "
                                f"{' and '.join(sorted(needed))}")
            yield from table
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check {option}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}): correct it") from None
