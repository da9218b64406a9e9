"""Make the demo's photos: real photographs, seen by many visitors, laid out as Google Landmarks on Kaggle.

    python preprocess/demo_data.py --out data/demo/photos [--seed 0] [--workers N]

Each landmark is a place in the photographs of the package mvtb-data; its photos are strong random views of it. Writes
train/ and test/ (a/b/c/<id>.jpg), train.csv, test_solution.csv and sample_submission.csv. Killed at any moment, the
same command goes on; train.csv appears last.
"""
import argparse
import csv
import hashlib
import io
from itertools import groupby
from pathlib import Path

import cv2
import joblib
import numpy as np
from joblib import Parallel, delayed

from arcshard.console import Parser, UserError, progress, run
from arcshard.files import whole_file, write_text
from preprocess.demo_plan import Photo, plan
from preprocess.demo_planted import encode
from preprocess.demo_sources import LANDMARKS, NON_LANDMARKS, check_package
from preprocess.demo_views import load_source, render_view

SEED_FILE = "seed.txt"
QUALITY = (55, 95)  # of JPEG


def main() -> None:
    args = parse_args()
    check_package()
    args.out.mkdir(parents=True, exist_ok=True)
    check_seed(args.out, args.seed)
    photos = plan(args.seed)
    if (args.out / "train.csv").exists():
        print(f"already made: {args.out} holds the photos of seed {args.seed}")
        return
    write_photos(photos, args.out, args.seed, args.workers)
    write_tables(photos, args.out)
    counts = {split: sum(photo.split == split for photo in photos) for split in ("train", "test")}
    print(f"{args.out}: {counts['train']:,} training photos of {len(LANDMARKS)} landmarks, {counts['test']:,} queries")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write, made if missing")
    parser.add_argument("--seed", type=int, default=0, help="chooses every view (default: 0)")
    parser.add_argument("--workers", type=int, default=joblib.cpu_count(), help="processes (default: cores)")
    return parser.parse_args()


def check_seed(out: Path, seed: int) -> None:
    """Note the seed in a new folder. Raises UserError if the folder was begun with another, or is not ours."""
    note = out / SEED_FILE
    if not note.exists():
        if any(out.iterdir()):
            raise UserError(f"--out must be a new folder or one that this command began, but {out} holds other "
                            "files: choose another")
        write_text(note, f"{seed}\n")
    if note.read_text() != f"{seed}\n":
        raise UserError(f"{out} holds the photos of seed {note.read_text().strip()}, not of {seed}: "
                        "repeat that seed, or choose another --out")


def write_photos(photos: list[Photo], out: Path, seed: int, workers: int) -> None:
    """Draw and write the photos that are not there yet, one task a place."""
    by_place = sorted(photos, key=lambda photo: (photo.place, photo.split, photo.number))
    tasks = [list(group) for _, group in groupby(by_place, key=lambda photo: photo.place)]
    with progress(total=len(photos), unit="photos", what="draw") as bar:
        for done in Parallel(n_jobs=workers, return_as="generator_unordered")(
                delayed(write_place)(group, out, seed) for group in tasks):
            bar.update(done)


def write_place(photos: list[Photo], out: Path, seed: int) -> int:
    """Write the missing ones of one place's photos; returns how many it has."""
    cv2.setNumThreads(1)  # places are drawn in parallel
    place = photos[0].place
    sources = [load_source(source) for source in (LANDMARKS | NON_LANDMARKS)[place]]
    for photo in photos:
        path = out / photo.path
        if path.exists():
            continue
        rng = np.random.default_rng((seed, int.from_bytes(hashlib.sha256(place.encode()).digest()[:8]), photo.number))
        view = render_view(sources[photo.number % len(sources)], rng)
        data = encode(view, photo.kind, int(rng.integers(*QUALITY)))
        if data is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as f:
                f.write(data)
    return len(photos)


def write_tables(photos: list[Photo], out: Path) -> None:
    """train.csv, test_solution.csv and sample_submission.csv, rows by id, the columns of Kaggle's files."""
    train = sorted((photo.id, photo.landmark_id) for photo in photos if photo.split == "train")
    test = sorted((photo.id, photo.landmark_id) for photo in photos if photo.split == "test")
    usage = ["Public" if int(key, 16) % 3 == 0 else "Private" for key, _ in test]
    _write_csv(out / "test_solution.csv", ["id", "landmarks", "Usage"],
               [(*row, use) for row, use in zip(test, usage)])
    _write_csv(out / "sample_submission.csv", ["id", "landmarks"], [(key, f"{train[0][1]} 0.1") for key, _ in test])
    _write_csv(out / "train.csv", ["id", "landmark_id"], train)


def _write_csv(path: Path, header: list[str], rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


if __name__ == "__main__":
    run(main)
