"""Read what is known of the raw photos: GLDv2's and Kaggle's own tables, or any other by the names of its columns."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from preprocess.samples.photo_ids import ids_from_paths
from preprocess.samples.sample_table import check_paths
from preprocess.samples.text_table import column_names, read_columns

ID, LANDMARK, IMAGES = "id", "landmark_id", "images"


class Columns(NamedTuple):
    """How a table calls what it says of a photo; without an id column the id is made from the path."""

    id: str | None = None
    """None: "id" if the table has it, or no path."""
    label: str = LANDMARK
    path: str | None = None
    """None: no path."""


def read_photos(source: Path, columns: Columns) -> pd.DataFrame:
    """Columns id, landmark_id (a category) and, if asked for, path of all photos of a CSV or Parquet table.

    GLDv2's train_clean.csv (landmark_id, images: ids with spaces between) is known by its columns. Raises UserError
    for what is no table, lacks a column, or has an empty or unfit path.
    """
    names = column_names(source)
    if columns == Columns() and ID not in names and {LANDMARK, IMAGES} <= {*names}:
        return _photos_of_lists(read_columns(source, [LANDMARK, IMAGES], plain=[IMAGES]))
    return read_named(source, columns, [columns.label]).rename(columns={columns.label: LANDMARK})


def read_named(source: Path, columns: Columns, others: Sequence[str]) -> pd.DataFrame:
    """Columns id, [path] and `others` (categories); errors as in read_photos."""
    id = columns.id or (ID if columns.path is None or ID in column_names(source) else None)
    plain = [column for column in (id, columns.path) if column is not None]
    raw = read_columns(source, list(dict.fromkeys([*plain, *others])), plain)
    table = pd.DataFrame({column: raw[column].astype("category") for column in others})
    if columns.path is not None:
        check_paths(raw[columns.path].rename("path"), source)
        table["path"] = raw[columns.path]
    table["id"] = ids_from_paths(table["path"]) if id is None else raw[id]
    return table


def _photos_of_lists(classes: pd.DataFrame) -> pd.DataFrame:
    """A row for each id in `images`."""
    lists = pc.ascii_split_whitespace(pa.array(classes[IMAGES], pa.large_string()))
    photos = pa.table({"id": pc.list_flatten(lists), "row": pc.list_parent_indices(lists)})
    photos = photos.filter(pc.not_equal(photos["id"], ""))  # spaces at either end of a list
    rows = photos["row"].to_numpy()
    return pd.DataFrame({ID: photos["id"].to_pandas(), LANDMARK: classes[LANDMARK].take(rows).reset_index(drop=True)})
