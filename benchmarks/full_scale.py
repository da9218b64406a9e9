"""Every command at the size of Google Landmarks v2: how long each takes and how much memory.

    python benchmarks/full_scale.py --work FOLDER [--classes 81313] [--workers 2] [--json FILE]

Makes a table of the clean set's 1,580,470 photos of 81,313 classes (sizes: scale_tables.py) and one zip that holds a
tiny photo for each (2.4 GB, kept for the next time); then clean.py keeps the classes of at least 15 photos,
make_shards.py packs them out of the zip, `shards verify` reads them back, the loader runs for ten seconds, and a tiny
network trains about 100 steps with an ArcFace head of all classes and validates once. Photos are tiny, so that rates
are those of everything but the pixels. Needs 6 GB on the disk.
"""
import argparse
import io
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import listed, publish
from PIL import Image
from scale_tables import CLEAN_CLASSES, landmark_table
from usage import usage_of

from arcshard.console import Parser, UserError, check_least, progress, run
from arcshard.files import whole_file

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "nvidia-dali-cuda130", "simplejpeg", "opencv-python-headless", "numpy", "pandas", "pyarrow")
SIDE = 24  # pixels of a photo
VARIANTS = 256  # different photos
BATCH, EPOCHS = 256, 0.02  # about 100 steps on all classes


def main() -> None:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    publish(args, PACKAGES, report, text)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for zip, dataset and run")
    parser.add_argument("--classes", type=int, default=CLEAN_CLASSES,
                        help=f"take only this many classes, as a trial (default: all {CLEAN_CLASSES:,})")
    parser.add_argument("--workers", type=int, default=2, help="processes and threads of each command (default: 2)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    check_least(args, 1, "workers", "classes")
    if args.classes > CLEAN_CLASSES:
        raise UserError(f"--classes is {args.classes:,}, but the clean set has {CLEAN_CLASSES:,}: give at most these")
    return args


def report(args: argparse.Namespace) -> dict[str, Any]:
    """{"commands": name -> seconds, parent_mb, worker_mb and the last line that it printed}."""
    make_photos(args.work / f"photos-{args.classes}.zip", args.work / f"photos-{args.classes}.csv", args.classes)
    for rest in ("dataset", "run"):
        shutil.rmtree(args.work / rest, ignore_errors=True)
    figures = {}
    for name, words in commands(args).items():
        usage, printed = usage_of(words)
        figures[name] = usage._asdict() | {"printed": (printed.strip().splitlines() or [""])[-1]}
        print(row(name, figures[name]), flush=True)
    return {"commands": figures}


def commands(args: argparse.Namespace) -> dict[str, list[object]]:
    """The walk, in its order."""
    work, workers = args.work, args.workers
    samples, dataset = work / "samples.csv", work / "dataset"
    photos = work / f"photos-{args.classes}"
    return {
        "clean": [ROOT / "preprocess/clean.py", "--csv", f"{photos}.csv", "--min-images", 15, "--folds", 50,
                  "--val-fold", 0, "--out", samples],
        "pack": [ROOT / "preprocess/make_shards.py", "--samples", samples, "--images", f"{photos}.zip",
                 "--out", dataset, "--workers", workers],
        "verify": ["-m", "shards", "verify", dataset, "--workers", workers],
        "loader": [ROOT / "benchmarks/peers/arcshard_loader.py", "--form", work, "--size", 32, "--batch-size", BATCH,
                   "--workers", workers, "--seconds", 10],
        "train": [ROOT / "train.py", "--data", dataset, "--out", work / "run", "--model.backbone", "test_efficientnet",
                  "--model.weights", "none", "--train.size", 32, "--train.global_batch", BATCH,
                  "--train.epochs", EPOCHS, "--train.warmup", 0, "--loader.num_threads", workers],
    }


def make_photos(archive: Path, table: Path, classes: int) -> None:
    """The table of the first `classes` landmarks, and a stored zip with a photo for each of its rows."""
    if table.exists():
        return
    rows = landmark_table().to_pandas()
    rows = rows[rows["landmark_id"].isin(rows["landmark_id"].unique()[:classes])]
    pool = list(tiny_photos())
    with whole_file(archive) as f, zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as out:
        for number, key in enumerate(progress(rows["id"].tolist(), unit="photo", what="make zip")):
            out.writestr(f"{'/'.join(key[:3])}/{key}.jpg", pool[number % VARIANTS])
    with whole_file(table) as f:
        rows.to_csv(f, index=False)


def tiny_photos() -> Iterator[bytes]:
    """VARIANTS JPEGs of smooth noise, SIDE × SIDE."""
    for coarse in np.random.default_rng(0).integers(0, 256, (VARIANTS, 4, 4, 3), np.uint8):
        out = io.BytesIO()
        Image.fromarray(coarse).resize((SIDE, SIDE)).save(out, "JPEG", quality=90, subsampling="4:2:0")
        yield out.getvalue()


def text(report: dict[str, Any]) -> str:
    total = sum(figures["seconds"] for figures in report["commands"].values())
    return f"{listed(report['machine'])}\nall {total:,.0f} s"


def row(name: str, figures: dict[str, Any]) -> str:
    return (f"{name:8}{figures['seconds']:7,.0f} s   parent {figures['parent_mb']:6,.0f} MB   largest worker "
            f"{figures['worker_mb']:6,.0f} MB   {figures['printed']}")


if __name__ == "__main__":
    run(main)
