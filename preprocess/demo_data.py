"""Make the demo's photos: views of real photographs, in the layout of Kaggle's Google Landmarks 2020.

    python preprocess/demo_data.py --out data/demo/photos [--seed 0] [--workers N]

Writes train/a/b/c/<id>.jpg, train.csv (id,landmark_id), test/a/b/c/<id>.jpg, test_solution.csv
(id,landmarks,Usage; landmarks is empty where there is none) and sample_submission.csv (id,landmarks). The landmarks
of fewer than 15 photos, which clean.py leaves out of training, have a gallery and queries of their own: unseen.csv, a
sample table for make_shards.py, and unseen/a/b/c/<id>.jpg. The same seed gives the same bytes, with any number of
workers. Run again after an interruption, it writes what is missing.
"""
import argparse
from pathlib import Path

import joblib

from arcshard.console import Parser, UserError, run
from arcshard.files import folder_lock, report_full_disk, write_text
from preprocess.demo.plan import MISSING, csv_files, query_photos, train_photos, unseen_photos
from preprocess.demo.sources import check_package
from preprocess.demo.views import write_photos


def main() -> None:
    args = parse_args()
    check_package()
    args.out.mkdir(parents=True, exist_ok=True)
    with report_full_disk(args.out), folder_lock(args.out):
        make(args.out, args.seed, args.workers)


def make(out: Path, seed: int, workers: int) -> None:
    """Write what is missing of the photos and tables."""
    train, queries = train_photos(seed), query_photos(seed) + unseen_photos(seed)
    photos = train + queries
    tables = csv_files(seed)
    check_output(out, {photo.id for photo in photos}, tables["train.csv"], seed)
    lacking = [photo for photo in photos if photo.oddity != MISSING and not (out / photo.path).exists()]
    if not lacking and all((out / name).exists() for name in tables):
        print(f"nothing to do: {out} is complete")
        return
    write_photos(lacking, out, workers)
    for name, text in tables.items():
        write_text(out / name, text)
    print(f"{out}: {len(train):,} train photos of {len({photo.place for photo in train})} landmarks, "
          f"{len(queries)} queries")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the photos and tables")
    parser.add_argument("--seed", type=int, default=0, help="seed of the views, 0 or more (default: 0)")
    parser.add_argument("--workers", type=int, default=joblib.cpu_count(), help="processes (default: one per core)")
    args = parser.parse_args()
    for name, least in {"seed": 0, "workers": 1}.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name} is {getattr(args, name)}: give at least {least}")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"{args.out} is a file: choose a folder for --out")
    return args


def check_output(out: Path, ids: set[str], train_csv: str, seed: int) -> None:
    """Raise UserError if `out` holds photos or a train.csv that this seed does not make."""
    strange = {path.stem for path in out.glob("*/?/?/?/*.jpg")} - ids
    table = out / "train.csv"
    if strange or table.exists() and table.read_text() != train_csv:
        raise UserError(f"{out} holds other photos than those of --seed {seed}: give the seed they were made with, or "
                        "choose another --out")


if __name__ == "__main__":
    run(main)
