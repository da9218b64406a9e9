"""The options of clean.py."""
import argparse
from pathlib import Path

from arcshard.console import Parser, UserError, check_least
from preprocess.samples.photo_table import LANDMARK, Columns


def parse_args(description: str | None) -> argparse.Namespace:
    """The command's arguments. Raises UserError for values out of range and for options that do not go together."""
    parser = Parser(description=description)
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
    photos.add_argument("--image-folder", metavar="TREE", help="folder or fsspec URL with one folder a class")
    parser.add_argument("--id-column", metavar="NAME", help="of --csv (default: id, or ids are made from the paths)")
    parser.add_argument("--label-column", metavar="NAME", default=LANDMARK, help="of --csv (default: landmark_id)")
    parser.add_argument("--path-column", metavar="NAME", help="of --csv (default: photos are found by their ids)")
    parser.add_argument("--out", type=Path, required=True, help="the sample table, CSV or Parquet")


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes-like", type=Path, metavar="TABLE",
                        help="keep the classes of this table only; a sample table also gives their labels")
    parser.add_argument("--min-images", type=int, metavar="N", default=15, help="drop classes with fewer (default: 15)")
    parser.add_argument("--images-per-class", type=int, metavar="N", help="then draw at most N photos a class")


def _add_splits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--folds", type=int, metavar="K", help="cut K stratified folds")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and of the draw (default: 0)")
    parser.add_argument("--val-fold", type=int, metavar="K", help="this fold becomes split val")
    parser.add_argument("--val-every", type=int, metavar="N",
                        help="only every Nth photo of that fold does, its others are left out")
    parser.add_argument("--folds-like", type=Path, metavar="TABLE",
                        help="photos of this sample table keep its folds and splits, all others train")
    parser.add_argument("--solution", type=Path, metavar="TABLE", help="columns id, landmarks: becomes split test")
    parser.add_argument("--usage-splits", action="store_true",
                        help="the solution's column Usage tells test_public from test_private")


def _check_numbers(args: argparse.Namespace) -> None:
    if args.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {args.seed}")
    check_least(args, 1, "images_per_class", "val_every")
    if args.val_fold is not None and args.folds is None:
        raise UserError("--val-fold names one of the folds that --folds cuts, but --folds is missing: add it")
    if args.val_fold is not None and not 0 <= args.val_fold < args.folds:
        raise UserError(f"--val-fold must be one of the folds 0 to {args.folds - 1}, not {args.val_fold}")


def _check_combinations(args: argparse.Namespace) -> None:
    if args.val_every is not None and args.val_fold is None:
        raise UserError("--val-every takes a part of the fold --val-fold, but --val-fold is missing: add it")
    if args.folds_like is not None and args.folds is not None:
        raise UserError("folds are cut by --folds or taken over by --folds-like, but both are given: leave one out")
    if args.usage_splits and args.solution is None:
        raise UserError("--usage-splits splits the queries of --solution, but --solution is missing: add it")
    if args.image_folder and (args.columns != Columns() or args.solution is not None):
        raise UserError("--id-column, --label-column, --path-column and --solution go with --csv, but --image-folder "
                        "is given: leave them out, or list the photos in a table")
