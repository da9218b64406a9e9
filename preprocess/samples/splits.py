"""Which photos are for validation: a fold, a part of one, or those of another table."""
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from arcshard.console import UserError
from preprocess.samples.text_table import column_names, read_columns


def stratified_folds(labels: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Fold 0 … k-1 of each sample, int64 (N,), for int labels (N,): each class is spread evenly over the folds.

    The folds are those of scikit-learn's StratifiedKFold(k, shuffle=True, random_state=seed). That one compares all
    samples with each class in turn (27,756 classes: minutes), and refuses or warns when a class has fewer than k
    samples. Raises UserError for k outside 2 … N.
    """
    if not 2 <= k <= len(labels):
        raise UserError(f"--folds is {k}: give 2 to {len(labels):,}, the number of images")
    codes, classes = pd.factorize(labels)  # classes in order of appearance, as scikit-learn takes them
    by_class = np.argsort(codes, kind="stable")
    # Position p of the samples sorted by class goes to fold p mod k: per class, folds differ by at most one sample.
    dealt = [np.bincount(codes[by_class][fold::k], minlength=len(classes)) for fold in range(k)]
    random = np.random.RandomState(seed)
    folds = np.empty(len(labels), np.int64)
    end = 0
    for counts in np.stack(dealt, axis=1):
        of_class = np.repeat(np.arange(k), counts)
        random.shuffle(of_class)
        folds[by_class[end:end + len(of_class)]] = of_class
        end += len(of_class)
    return folds


NO_FOLD = -1


def add_folds(table: pd.DataFrame, k: int, seed: int, val_fold: int | None) -> pd.DataFrame:
    """The table with a column fold; rows of fold `val_fold` get the split val."""
    folds = stratified_folds(table["label"].to_numpy(), k, seed)
    split = np.where(folds == val_fold, "val", table["split"]) if val_fold is not None else table["split"]
    return table.assign(split=split, fold=folds)


def every_val(table: pd.DataFrame, every: int) -> pd.DataFrame:
    """The table with only rows 0, every, 2 · every, … of split val; other splits are unchanged.

    The 3rd place of 2020 validated like this, with every = 15. Raises UserError if a class would lose all its photos.
    """
    val = (table["split"] == "val").to_numpy()
    kept = table[~val | ((np.cumsum(val) - 1) % every == 0)]
    lost = table["label"].nunique() - kept["label"].nunique()
    if lost:
        raise UserError(f"--val-every {every} takes the only photo of {lost:,} classes: choose --min-images 2 or more")
    return kept


def like_another(table: pd.DataFrame, other: Path) -> pd.DataFrame:
    """The table with split and fold of the same photos in the sample table `other`; new photos get train and -1.

    If `other` has no column fold, neither has the result. Raises UserError if `other` has none of the photos, or a fold
    that is not a number.
    """
    columns = ["split", "fold"] if "fold" in column_names(other) else ["split"]
    known = read_columns(other, ["id", *columns])
    at = pc.index_in(pa.array(table["id"]), value_set=pa.chunked_array([pa.array(known["id"])]).combine_chunks())
    at = at.fill_null(-1).to_numpy()
    if (at < 0).all():
        raise UserError(f"{other} has no photo of this table: check that --folds-like names a sample table of the same "
                        "data set")
    table = table.assign(split=np.where(at >= 0, known["split"].astype("str").to_numpy()[at], "train"))
    if "fold" not in columns:
        return table
    return table.assign(fold=np.where(at >= 0, _folds(known["fold"], other)[at], NO_FOLD))


def _folds(texts: pd.Series, source: Path) -> np.ndarray:
    names = texts.cat.categories
    wrong = names[~names.str.fullmatch(r"-1|\d{1,9}")]
    if len(wrong):
        raise UserError(f"{source} has the fold {wrong[0]!r}; folds are -1 (none), 0, 1, 2, …: make the table with "
                        "preprocess/clean.py")
    return texts.astype(np.int64).to_numpy()
