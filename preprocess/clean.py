"""Make the sample table: choose classes and photos, number the classes, make folds, add the test queries.

    python preprocess/clean.py --csv train.csv --min-images 15 --out samples.csv
        [--folds 5 --seed 0 --val-fold 0 [--val-every 15] | --folds-like samples.csv]
        [--solution recognition_solution_v2.1.csv [--usage-splits]]

--csv is one of Google Landmarks v2's own tables (train.csv, train_clean.csv, Kaggle's train.csv), recognized by their
columns, or any CSV or Parquet (.parquet) table, with --id-column, --label-column and --path-column. Instead of --csv,
--image-folder takes a tree with one folder per class. The stages that the winners trained on:

    clean                       --csv train_clean.csv --min-images 1
    full                        --csv train.csv --min-images 1
    full, of clean's classes    --csv train.csv --min-images 1 --classes-like train_clean.csv
    full, with labels, folds and validation photos of clean's samples.csv
                                --csv train.csv --min-images 1 --classes-like samples.csv --folds-like samples.csv

Options apply in this order: --classes-like, --min-images, --images-per-class, folds, --val-every, --solution. The table
has the columns id, landmark_id (with _ for white space, as a submission needs it), label (0, 1, … in sorted order of
landmark_id; -1: no landmark) and split; with folds also fold (-1: none), with paths also path, and truths (all labels)
if a query has several landmarks that were kept.
"""
import argparse
from pathlib import Path

import pandas as pd

from arcshard.console import Parser, UserError, check_least, run
from arcshard.names import plain_landmarks
from preprocess.samples.classes import (
    at_most,
    labeled,
    large_classes,
    of_classes,
    read_classes,
    same_labels,
    with_landmarks,
)
from preprocess.samples.raw_tables import (
    LANDMARK,
    Columns,
    query_rows,
    read_class_folders,
    read_photos,
    read_queries,
)
from preprocess.samples.sample_table import check_ids, check_lines
from preprocess.samples.splits import add_folds, every_val, like_another
from preprocess.samples.text_table import write_table
from shards.format import NO_LANDMARK

COLUMNS = ["id", LANDMARK, "label", "split", "fold", "path", "truths"]


def main() -> None:
    args = parse_args()
    photos = read_source(args)
    check_ids(photos["id"], args.source)
    check_lines(photos[LANDMARK], args.source)
    photos = with_plain_landmarks(photos, args.source)
    table, landmark_ids = choose(photos, args)
    table = with_validation(table, args)
    if args.solution is not None:
        table = pd.concat([table, test_rows(landmark_ids, list(table), args)])
        check_ids(table["id"], f"{args.source} with {args.solution}")
    table = with_landmarks(table, landmark_ids)
    write_table(args.out, table[[column for column in COLUMNS if column in table]])


def read_source(args: argparse.Namespace) -> pd.DataFrame:
    """Columns id, landmark_id, [path] of all photos."""
    if args.csv is not None:
        return read_photos(args.csv, args.columns)
    photos, others = read_class_folders(args.image_folder)
    print(f"found {len(photos):,} photos, and {others:,} other files that are left out")
    return photos


def with_plain_landmarks(photos: pd.DataFrame, source: Path | str) -> pd.DataFrame:
    """The photos with _ for white space in landmark ids, since a submission cannot hold it."""
    landmarks = photos[LANDMARK].astype("category").cat
    plain = plain_landmarks(landmarks.categories.tolist(), source)
    changed = sum(one != other for one, other in zip(plain, landmarks.categories))
    if changed:
        print(f"put _ for white space in the landmark ids of {changed:,} classes")
    return photos.assign(landmark_id=landmarks.rename_categories(plain))


def choose(photos: pd.DataFrame, args: argparse.Namespace) -> tuple[pd.DataFrame, list[str]]:
    """The photos that are kept, with labels and split train, and the landmark ids (position = label)."""
    like = read_classes(args.classes_like, args.label_column) if args.classes_like else None
    if like is not None:
        before, photos = len(photos), of_classes(photos, like, args.source)
        print(f"left out {before - len(photos):,} images of classes that {like.source} does not have")
    landmark_ids = large_classes(photos[LANDMARK], args.min_images, args.source)
    if like is not None and like.numbered:
        landmark_ids = same_labels(landmark_ids, like)
    table = labeled(photos, landmark_ids)
    print(f"kept {len(table):,} images of {len(landmark_ids):,} classes, dropped {len(photos) - len(table):,} images "
          f"of {photos[LANDMARK].nunique() - len(landmark_ids):,} classes with fewer than {args.min_images} images")
    if args.images_per_class is not None:
        table = at_most(table, args.images_per_class, args.seed)
        print(f"drew {len(table):,} of them, at most {args.images_per_class:,} per class")
    return table, landmark_ids


def with_validation(table: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """The table with folds and validation rows, where options ask for them."""
    if args.folds_like is not None:
        table = like_another(table, args.folds_like)
    if args.folds is not None:
        table = add_folds(table, args.folds, args.seed, args.val_fold)
    if args.val_every is not None:
        before, table = len(table), every_val(table, args.val_every)
        print(f"left out {before - len(table):,} images of fold {args.val_fold}: one in {args.val_every} of it is val")
    alone = (table["split"] == "val") & ~table["label"].isin(table["label"][table["split"] == "train"])
    if alone.any():
        print(f"{table['label'][alone].nunique():,} classes have no train photo: their only {alone.sum():,} photos are "
              "val")
    if "fold" in table:
        print(table.groupby(["fold", "split"]).size().rename("images").to_string())
    return table


def test_rows(landmark_ids: list[str], columns: list[str], args: argparse.Namespace) -> pd.DataFrame:
    """Rows of the test queries with those columns, and truths if a query has several landmarks."""
    asked = read_queries(args.solution, args.columns, args.usage_splits)
    queries = asked[asked["split"] != ""]
    if args.usage_splits:
        print(f"left out {len(asked) - len(queries):,} queries whose Usage is neither Public nor Private")
    test = query_rows(queries, landmark_ids)
    none = (test["label"] == NO_LANDMARK).sum()
    print(f"test: {len(test) - none:,} queries with a landmark, {none:,} without, "
          f"{len(queries) - len(test):,} left out since none of their landmarks was kept")
    return test[[*columns, "truths"] if (test["truths"] != "").any() else columns]


def parse_args() -> argparse.Namespace:
    """The command's arguments. Raises UserError for values out of range and for options that exclude each other."""
    parser = Parser(description=__doc__)
    _add_tables(parser)
    _add_choice(parser)
    _add_splits(parser)
    args = parser.parse_args()
    args.source = args.csv or args.image_folder
    args.columns = Columns(args.id_column, args.label_column, args.path_column)
    _check_numbers(args)
    _check_combinations(args)
    return args


def _add_tables(parser: argparse.ArgumentParser) -> None:
    photos = parser.add_mutually_exclusive_group(required=True)
    photos.add_argument("--csv", type=Path, metavar="TABLE", help="the photos, CSV or Parquet")
    photos.add_argument("--image-folder", metavar="TREE", help="folder or fsspec URL with one folder per class")
    parser.add_argument("--id-column", metavar="NAME",
                        help="column of ids (default: id, or ids are made from the paths)")
    parser.add_argument("--label-column", metavar="NAME", default=LANDMARK,
                        help="column of class names (default: landmark_id)")
    parser.add_argument("--path-column", metavar="NAME",
                        help="column of photo paths (default: photos are found by their ids)")
    parser.add_argument("--out", type=Path, required=True, help="the sample table, CSV or Parquet")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes-like", type=Path, metavar="TABLE",
                        help="keep only the classes of this table, with its labels if it is a sample table")
    parser.add_argument("--min-images", type=int, metavar="N", default=15,
                        help="drop classes with fewer images (default: 15)")
    parser.add_argument("--images-per-class", type=int, metavar="N",
                        help="keep at most N photos per class, drawn by a hash of seed and id")


def _add_splits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folds", type=int, metavar="K", help="make K stratified folds")
    parser.add_argument("--seed", type=int, default=0,
                        help="seed of --folds and --images-per-class (default: 0)")
    parser.add_argument("--val-fold", type=int, metavar="K", help="use this fold as split val")
    parser.add_argument("--val-every", type=int, metavar="N",
                        help="use only every Nth photo of that fold, leave out its others")
    parser.add_argument("--folds-like", type=Path, metavar="TABLE",
                        help="take folds and splits from this sample table; photos that it lacks get split train")
    parser.add_argument("--solution", type=Path, metavar="TABLE",
                        help="queries with the columns id and landmarks, for split test")
    parser.add_argument("--usage-splits", action="store_true",
                        help="split the queries into test_public and test_private by the solution's column Usage")


def _check_numbers(args: argparse.Namespace) -> None:
    if args.seed < 0:
        raise UserError(f"--seed is {args.seed}: give at least 0")
    check_least(args, 1, "min_images", "images_per_class", "val_every")
    if args.val_fold is not None and args.folds is None:
        raise UserError("--val-fold needs --folds, which is missing: add it")
    if args.val_fold is not None and not 0 <= args.val_fold < args.folds:
        raise UserError(f"--val-fold is {args.val_fold}: give one of the folds, 0 to {args.folds - 1}")


def _check_combinations(args: argparse.Namespace) -> None:
    if args.val_every is not None and args.val_fold is None:
        raise UserError("--val-every needs --val-fold, which is missing: add it")
    if args.folds_like is not None and args.folds is not None:
        raise UserError("--folds and --folds-like exclude each other, but both are given: leave one out")
    if args.usage_splits and args.solution is None:
        raise UserError("--usage-splits needs --solution, which is missing: add it")
    if args.image_folder and (args.columns != Columns() or args.solution is not None):
        raise UserError("--id-column, --label-column, --path-column and --solution need --csv, but --image-folder is "
                        "given: leave them out, or list the photos in a table")


if __name__ == "__main__":
    run(main)
