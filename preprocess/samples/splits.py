"""Which photos validate: a fold, a part of it, or those of another table."""
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from arcshard.console import UserError
from preprocess.samples.folds import stratified_folds
from preprocess.samples.text_table import column_names, read_columns

NO_FOLD = -1


def add_folds(table: pd.DataFrame, k: int, seed: int, val_fold: int | None) -> pd.DataFrame:
    """The table with a column fold; rows of `val_fold` become split val."""
    folds = stratified_folds(table["label"].to_numpy(), k, seed)
    split = np.where(folds == val_fold, "val", table["split"]) if val_fold is not None else table["split"]
    return table.assign(split=split, fold=folds)


def every_val(table: pd.DataFrame, every: int) -> pd.DataFrame:
    """The table with rows 0, every, 2 · every, … of split val, and without its others.

    So the 3rd place of 2020 validated, with every = 15. Raises UserError if a class would lose all its photos.
    """
    val = (table["split"] == "val").to_numpy()
    kept = table[~val | ((np.cumsum(val) - 1) % every == 0)]
    lost = table["label"].nunique() - kept["label"].nunique()
    if lost:
        raise UserError(f"--val-every must leave each class a photo, but takes the only one of {lost:,} classes: "
                        "choose --min-images 2 or more")
    return kept


def like_another(table: pd.DataFrame, other: Path) -> pd.DataFrame:
    """The table with split and fold of the same photos in the sample table `other`; the others get train and -1.

    Without a column fold there, none is made here. Raises UserError if `other` has none of the photos or a
    fold that is no number.
    """
    columns = ["split", "fold"] if "fold" in column_names(other) else ["split"]
    known = read_columns(other, ["id", *columns])
    at = pc.index_in(pa.array(table["id"]), value_set=pa.chunked_array([pa.array(known["id"])]).combine_chunks())
    at = at.fill_null(-1).to_numpy()
    if (at < 0).all():
        raise UserError(f"--folds-like must name a sample table with photos of this one, but {other} has none of "
                        "them: check that both are of one data set")
    table = table.assign(split=np.where(at >= 0, known["split"].astype("str").to_numpy()[at], "train"))
    if "fold" not in columns:
        return table
    return table.assign(fold=np.where(at >= 0, _folds(known["fold"], other)[at], NO_FOLD))


def _folds(texts: pd.Series, source: Path) -> np.ndarray:
    names = texts.cat.categories
    wrong = names[~names.str.fullmatch(r"-1|\d{1,9}")]
    if len(wrong):
        raise UserError(f"a fold must be -1 (none), 0, 1, 2, …, but {source} has {wrong[0]!r}: make the table with "
                        "preprocess/clean.py")
    return texts.astype(np.int64).to_numpy()
