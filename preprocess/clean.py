"""Make the sample table: drop small classes, number the others, cut folds, add the test queries.

    python preprocess/clean.py --csv train.csv --min-images 15 --out samples.csv
        [--folds 5 --seed 0 --val-fold 0] [--solution test_solution.csv]

train.csv has the columns id and landmark_id, the solution id and landmarks (landmark ids with spaces
between, or nothing: no landmark). The table has id, landmark_id, label (0 … in sorted order of landmark_id;
-1: no landmark) and split, and with --folds also fold (test rows: -1).
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from arcshard.console import Parser, UserError, run
from arcshard.files import write_text
from preprocess.folds import stratified_folds
from preprocess.sample_table import check_ids, read_csv
from shards.format import NO_LANDMARK


def main() -> None:
    args = parse_args()
    photos = read_csv(args.csv, ["id", "landmark_id"])
    check_ids(photos["id"], args.csv)
    landmark_ids = large_classes(photos["landmark_id"], args.min_images, args.csv)
    table = train_rows(photos, landmark_ids)
    print(kept_line(photos, table, args.min_images))
    if args.folds is not None:
        table = add_folds(table, args.folds, args.seed, args.val_fold)
        print(table.groupby(["fold", "split"]).size().rename("images").to_string())
    if args.solution is not None:
        queries = read_csv(args.solution, ["id", "landmarks"])
        test = test_rows(queries, landmark_ids)
        print(test_line(queries, test))
        table = pd.concat([table, test]).reindex(columns=table.columns)
        check_ids(table["id"], f"{args.csv} with {args.solution}")
    write_text(args.out, table.to_csv(index=False, lineterminator="\n"))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--csv", type=Path, required=True, help="columns id, landmark_id")
    parser.add_argument("--out", type=Path, required=True, help="the sample table")
    parser.add_argument("--min-images", type=int, default=15, help="drop classes with fewer (default: 15)")
    parser.add_argument("--folds", type=int, help="cut that many stratified folds")
    parser.add_argument("--seed", type=int, default=0, help="of the folds (default: 0)")
    parser.add_argument("--val-fold", type=int, help="this fold becomes split val")
    parser.add_argument("--solution", type=Path, help="columns id, landmarks: becomes split test")
    args = parser.parse_args()
    if args.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {args.seed}")
    if args.val_fold is not None and args.folds is None:
        raise UserError("--val-fold names one of the folds that --folds cuts, but --folds is missing: add it")
    if args.val_fold is not None and not 0 <= args.val_fold < args.folds:
        raise UserError(f"--val-fold must be one of the folds 0 to {args.folds - 1}, not {args.val_fold}")
    return args


def large_classes(landmarks: pd.Series, min_images: int, source: Path) -> list[str]:
    """Landmark ids that occur at least `min_images` times, sorted: as numbers if all are, else as texts.

    Raises UserError if there is none or an id is empty; `source` names the table.
    """
    if (landmarks == "").any():
        raise UserError(f"each image of {source} must have a landmark_id, but "
                        f"{(landmarks == '').sum():,} have none: remove those rows")
    counts = landmarks.value_counts()
    large = counts.index[counts >= min_images]
    if not len(large):
        raise UserError(f"--min-images must leave a class, but {min_images} leaves none: the largest of "
                        f"{source} has {counts.max():,} images, choose at most that")
    numbers = counts.index.str.fullmatch("-?[0-9]+").all()
    return sorted(large, key=(lambda text: (int(text), text)) if numbers else None)


def train_rows(photos: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """The photos (id, landmark_id) of those landmarks, with label (the landmark's position) and split."""
    labels = pd.Index(landmark_ids).get_indexer(photos["landmark_id"])
    return photos.assign(label=labels, split="train")[labels >= 0]


def add_folds(table: pd.DataFrame, k: int, seed: int, val_fold: int | None) -> pd.DataFrame:
    """The table with a column fold; rows of `val_fold` become split val."""
    folds = stratified_folds(table["label"].to_numpy(), k, seed)
    split = np.where(folds == val_fold, "val", table["split"]) if val_fold is not None else table["split"]
    return table.assign(split=split, fold=folds)


def test_rows(queries: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """Rows of split test for queries (id, landmarks), without those whose landmarks were all dropped.

    The label is that of the first landmark that was kept, as the 1st place of 2020 took it,
    and -1 where landmarks is empty.
    """
    each = queries["landmarks"].str.split().explode().dropna()
    labels = pd.Series(pd.Index(landmark_ids).get_indexer(each), index=each.index)
    first = labels[labels >= 0].groupby(level=0).first()
    none = pd.Series(NO_LANDMARK, index=queries.index[~queries.index.isin(each.index)])
    label = pd.concat([first, none]).sort_index()
    landmark = np.array([*landmark_ids, ""], dtype=object)[label]  # -1 picks the last, ""
    return pd.DataFrame({"id": queries["id"].loc[label.index], "landmark_id": landmark, "label": label,
                         "split": "test", "fold": -1})


def kept_line(photos: pd.DataFrame, table: pd.DataFrame, min_images: int) -> str:
    """What the filter did, for the user."""
    kept, classes = table["label"].nunique(), photos["landmark_id"].nunique()
    return (f"kept {len(table):,} images of {kept:,} classes, dropped {len(photos) - len(table):,} images of "
            f"{classes - kept:,} classes with fewer than {min_images} images")


def test_line(queries: pd.DataFrame, test: pd.DataFrame) -> str:
    """What became of the queries, for the user."""
    none = (test["label"] == NO_LANDMARK).sum()
    return (f"test: {len(test) - none:,} queries with a landmark, {none:,} without, "
            f"{len(queries) - len(test):,} left out since none of their landmarks was kept")


if __name__ == "__main__":
    run(main)
