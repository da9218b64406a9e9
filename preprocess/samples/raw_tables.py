"""Read tables of raw photos and test queries: those of GLDv2 and Kaggle, or others by their columns' names."""
import re
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from arcshard.console import UserError
from arcshard.names import MISSING
from arcshard.trees import files_below
from arcshard.urls import filesystem, reaching
from preprocess.images.formats import PHOTO_ENDINGS
from preprocess.samples.sample_table import check_paths
from preprocess.samples.splits import NO_FOLD
from preprocess.samples.text_table import column_names, read_columns, stripped
from shards.format import EXTENSION, KEY_PATTERN, NO_LANDMARK, made_key

# Photos in an ImageFolder tree: one folder per class, and the photos anywhere in it.


def read_class_folders(tree: str) -> tuple[pd.DataFrame, int]:
    """The photos in a local folder or fsspec URL, sorted by path, and the number of other files.

    Columns id (see ids_from_paths), landmark_id (the folder's name), path (relative, with /). Names that begin with a
    dot are ignored. Raises UserError for a tree without photos, for a photo outside the class folders, and for links
    as in files_below.
    """
    files = sorted(_files(tree))
    paths = [path for path in files if PurePosixPath(path).suffix.lower() in PHOTO_ENDINGS]
    if not paths:
        raise UserError(f"{tree} has no photo: check --image-folder, which needs a folder of photos for each class")
    outside = [path for path in paths if "/" not in path]
    if outside:
        raise UserError(f"{tree} has the photo {outside[0]!r} outside of any class's folder ({len(outside):,} such "
                        "photos): move them into the folders of their classes")
    table = pd.DataFrame({"path": _texts(paths, tree)})
    check_paths(table["path"], tree)
    classes = table["path"].str.partition("/")[0].astype("category")
    return table.assign(id=ids_from_paths(table["path"]), landmark_id=classes), len(files) - len(paths)


def _texts(paths: list[str], tree: str) -> pd.Series:
    try:
        return pd.Series(paths, dtype="str")
    except UnicodeEncodeError as error:  # os.fsdecode's stand-in for other bytes
        raise UserError(f"{tree} has a photo whose name is not UTF-8, {error.object!r}: rename it") from None


def _files(tree: str) -> list[str]:
    """Paths relative to the tree."""
    fs, root = filesystem(tree)
    if isinstance(fs, LocalFileSystem):  # whose find does not follow links
        return list(files_below(root))
    with reaching(tree):
        paths = [path.removeprefix(root).lstrip("/") for path in fs.find(root)]
    return [path for path in paths if not re.search(r"(^|/)\.", path)]


ID, LANDMARK, IMAGES = "id", "landmark_id", "images"


class Columns(NamedTuple):
    """Names of a table's columns; without an id column, ids are made from the paths."""

    id: str | None = None
    """None: "id" if the table has it or has no path, else the id is made from the path."""
    label: str = LANDMARK
    path: str | None = None
    """None: the table has no paths."""


def read_photos(source: Path, columns: Columns) -> pd.DataFrame:
    """Columns id, landmark_id (a category) and, if asked for, path of all photos of a CSV or Parquet table.

    GLDv2's train_clean.csv (landmark_id, images: ids separated by spaces) is recognized by its columns. Raises
    UserError for what is no table, lacks a column, or has a missing landmark or an empty or unusable path.
    """
    names = column_names(source)
    if columns == Columns() and ID not in names and {LANDMARK, IMAGES} <= {*names}:
        classes = read_columns(source, [LANDMARK, IMAGES], plain=[IMAGES])
        classes[LANDMARK] = stripped(classes[LANDMARK])
        _refuse_missing(classes[LANDMARK], MISSING, source, "remove those rows, or rename the class")
        return _photos_of_lists(classes)
    photos = read_named(source, columns, [columns.label])
    _refuse_missing(photos[columns.label], MISSING, source, "remove those rows, or rename the class")
    return photos.rename(columns={columns.label: LANDMARK})


def _refuse_missing(column: pd.Series, missing: Collection[str], source: Path, remedy: str) -> None:
    """Raise UserError that names the first row with one of the texts `missing`."""
    rows = np.flatnonzero(column.isin(missing))
    if len(rows):
        raise UserError(f"{source} has no {column.name} in row {rows[0] + 1} below the header "
                        f"({column.iloc[rows[0]]!r}, {len(rows):,} such rows): {remedy}")


def read_named(source: Path, columns: Columns, others: Sequence[str]) -> pd.DataFrame:
    """Columns id, [path] and `others` (categories), stripped except for path.

    Raises UserError as read_columns and check_paths do.
    """
    id = columns.id or (ID if columns.path is None or ID in column_names(source) else None)
    plain = [column for column in (id, columns.path) if column is not None]
    raw = read_columns(source, list(dict.fromkeys([*plain, *others])), plain)
    table = pd.DataFrame({column: stripped(raw[column].astype("category")) for column in others})
    if columns.path is not None:
        check_paths(raw[columns.path].rename("path"), source)
        table["path"] = raw[columns.path]
    table["id"] = ids_from_paths(table["path"]) if id is None else raw[id].str.strip()
    return table


def _photos_of_lists(classes: pd.DataFrame) -> pd.DataFrame:
    """One row per id in `images`."""
    lists = pc.ascii_split_whitespace(pa.array(classes[IMAGES], pa.large_string()))
    photos = pa.table({"id": pc.list_flatten(lists), "row": pc.list_parent_indices(lists)})
    photos = photos.filter(pc.not_equal(photos["id"], ""))  # spaces at either end of a list
    rows = photos["row"].to_numpy()
    return pd.DataFrame({ID: photos["id"].to_pandas(), LANDMARK: classes[LANDMARK].take(rows).reset_index(drop=True)})


def ids_from_paths(paths: pd.Series) -> pd.Series:
    """The id of each path: the path without its extension, where that is a valid key and unique.

    Other paths get the key that made_key makes of them. Equal paths get equal ids.
    """
    stems = paths.str.replace(EXTENSION, "", regex=True)
    made = ~stems.str.fullmatch(KEY_PATTERN) | stems.duplicated(keep=False)
    ids = stems.copy()
    ids[made] = [made_key(path) for path in paths[made]]
    return ids


# Test queries: the solution of the 2019 challenge (id, landmarks, Usage), or any table with id and landmarks.

LANDMARKS, USAGE = "landmarks", "Usage"
USAGE_SPLITS = {"Public": "test_public", "Private": "test_private"}


def read_queries(source: Path, columns: Columns, usage: bool) -> pd.DataFrame:
    """Columns id, landmarks (ids separated by spaces, or ""), split, [path]; errors as in read_photos, "" is allowed.

    usage: the split is test_public or test_private, and "" for any other Usage; without usage it is test.
    """
    queries = read_named(source, columns, [LANDMARKS, USAGE] if usage else [LANDMARKS])
    missing = [text for text in queries[LANDMARKS].cat.categories if not {*MISSING}.isdisjoint(text.split())]
    _refuse_missing(queries[LANDMARKS], missing, source, "leave the field empty where a query has no landmark")
    split = queries.pop(USAGE).astype("str").map(USAGE_SPLITS).fillna("") if usage else "test"
    return queries.assign(split=split, landmarks=queries[LANDMARKS].astype("str"))


def query_rows(queries: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """Rows id, label, split, fold, truths, [path] of the queries, except those whose landmarks were all dropped.

    label: that of the first landmark kept, as in the 1st place of 2020; -1 where landmarks is empty. truths: the labels
    of all landmarks kept if they are several, else "".
    """
    each = queries[LANDMARKS].str.split().explode().dropna()
    labels = pd.Series(pd.Index(landmark_ids).get_indexer(each), each.index, np.int64)
    pairs = labels[labels >= 0].rename("label").rename_axis("row").reset_index().drop_duplicates()
    kept = pairs.groupby("row")["label"]
    none = pd.Series(NO_LANDMARK, queries.index[~queries.index.isin(each.index)])
    label = pd.concat([kept.first(), none]).sort_index()
    truths = kept.agg(lambda several: " ".join(map(str, several)) if len(several) > 1 else "")
    truths = truths.astype("str").reindex(label.index, fill_value="")
    return queries.drop(columns=LANDMARKS).loc[label.index].assign(label=label, fold=NO_FOLD, truths=truths)
