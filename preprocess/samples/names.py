"""What landmarks are called: the table that GLDv2 gives beside its photos."""
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from arcshard.console import UserError
from preprocess.samples.text_table import read_columns

COLUMNS = ("landmark_id", "category")  # of GLDv2's train_label_to_category.csv: an address at Wikimedia Commons


def read_names(path: Path) -> dict[str, str]:
    """Landmark id -> name. Raises UserError for anything but such a table, and for a landmark with two rows."""
    table = read_columns(path, COLUMNS, plain=COLUMNS)
    twice = table["landmark_id"].duplicated()
    if twice.any():
        raise UserError(f"a landmark has one name, but {path} has several rows of "
                        f"{table['landmark_id'][twice].iloc[0]}: remove all but one")
    return dict(zip(table["landmark_id"], table["category"]))


def names_digest(names: Mapping[str, str]) -> str | None:
    """Hex digest that changes with any name; None if there are none."""
    return hashlib.sha256(json.dumps(sorted(names.items())).encode()).hexdigest() if names else None
