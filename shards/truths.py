"""SPLIT.truths.csv: the samples that have several true labels, as some test photos show several landmarks."""
import re
from pathlib import Path

from shards.csv_table import read_table
from shards.format import TRUTHS_COLUMNS

LABELS = re.compile(r"\d{1,9}( \d{1,9})+")


def read_truths(path: Path) -> dict[str, list[int]]:
    """Key -> all true labels, two or more, the sample's own first; empty without the file.

    Raises ValueError for a file that is none.
    """
    if not path.is_file():
        return {}
    truths: dict[str, list[int]] = {}
    for key, labels in read_table(path, TRUTHS_COLUMNS):
        if key in truths:
            raise ValueError(f"it has sample {key} twice")
        if not LABELS.fullmatch(labels):
            raise ValueError(f"sample {key} must have several labels, separated by spaces, not {labels!r}")
        truths[key] = [int(label) for label in labels.split(" ")]
    return truths
