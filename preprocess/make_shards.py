"""Pack photos into a dataset of tar shards.

    python preprocess/make_shards.py --samples samples.csv --images DIR|ZIP|TAR… --out DATASET
        [--names train_label_to_category.csv] [--short-side N] [--quality 90] [--no-verify] [--shard-size 1000]
        [--seed 0] [--max-pixels N] [--workers N] [--backend loky|dask|ray] [--scheduler ADDRESS] [--estimate N]
        [--append]

--images takes folders, zips and tars, as paths or as URLs of fsspec (s3://…, gs://…); archives are read without being
unpacked. Where several have a photo, the first one counts. A photo is found by the table's column path (relative to the
folder, absolute below it, or a name in the archive) or, without that column, by its id: a/b/c/<id>.jpg (a, b, c: its
first three characters), the same under train/, test/ or index/, or <id>.jpg; in an archive <id>.jpg in any folder. Two
different files for one id are refused.

--names gives the landmarks names, which go into classes.csv and are shown with answers.

If the command is killed at any moment, the same command continues where it stopped. Photos that cannot be packed are
listed in DATASET/rejected.csv with the reason.
"""
import argparse
import tempfile
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from arcshard.console import Parser, UserError, command_of, run
from preprocess.engine import Engine
from preprocess.images.formats import add_max_pixels
from preprocess.packing.estimate import estimate
from preprocess.packing.existing import ExistingDataset
from preprocess.packing.options import PackOptions
from preprocess.packing.output import open_output
from preprocess.packing.pack import pack
from preprocess.samples.classes import read_names
from preprocess.samples.sample_table import check_samples, read_samples, shuffled
from preprocess.sources import open_source


def main() -> None:
    args = parse_args()
    options = PackOptions(args.short_side, args.quality, args.verify, args.shard_size, args.seed, args.max_pixels)
    engine = Engine(args.workers, args.backend, args.scheduler)
    if args.estimate is not None:
        print(estimate_text(read_samples(args.samples), args.images, options, args.estimate, args.workers))
        return
    names = read_names(args.names) if args.names else {}
    if not pack(read_samples(args.samples), args.images, args.out, options, engine, args.append, names):
        print(f"nothing to do: {args.out} is already packed with these options")
    print(summary(args.out))
    print("next, with a preset of configs/:\n ",
          command_of("train", "--config", "configs/gldv2-r50.yaml", "--data", args.out, "--out", "runs/r50"))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="the table that clean.py wrote")
    parser.add_argument("--images", nargs="+", required=True, metavar="DIR|ZIP|TAR", help="where the photos are")
    parser.add_argument("--out", required=True, help="folder or URL of the dataset, created if missing")
    parser.add_argument("--names", type=Path, help="table with the columns landmark_id and category")
    parser.add_argument("--short-side", type=int, metavar="N", help="scale photos down to a short side of N pixels")
    parser.add_argument("--quality", type=int, default=90,
                        help="JPEG quality of photos that must be encoded (default: 90)")
    parser.add_argument("--no-verify", dest="verify", action="store_false",
                        help="do not decode photos whose bytes stay: faster, but damaged ones are packed too")
    parser.add_argument("--shard-size", type=int, default=1000, help="photos per shard (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffle (default: 0)")
    add_max_pixels(parser)
    parser.add_argument("--workers", type=int, default=joblib.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--backend", default="loky",
                        help="loky (default): processes on this machine; dask, ray: a cluster")
    parser.add_argument("--scheduler", help="address of a running cluster (tcp://… for dask)")
    parser.add_argument("--estimate", type=int, metavar="N", help="try N photos, estimate size and time, write nothing")
    parser.refuse_renamed("--rehearse", "--estimate")
    parser.add_argument("--append", action="store_true", help="add the rows that a finished DATASET lacks")
    return parser.parse_args()


def estimate_text(samples: pd.DataFrame, images: list[str], options: PackOptions, count: int, workers: int) -> str:
    """What packing would take, estimated from `count` photos. Raises UserError for a count below 1."""
    if count < 1:
        raise UserError(f"--estimate is {count}: give at least 1")
    check_samples(samples)
    with tempfile.TemporaryDirectory(prefix="arcshard-") as cache:
        source = open_source(images, Path(cache), workers)
        return estimate(shuffled(samples, options.seed), source, options, count).text(workers)


def summary(out: str) -> str:
    """One line per split of the dataset `out`: photos packed and rejected, shards, megabytes."""
    dataset = ExistingDataset(open_output(out))
    rejected = pd.Series([split for _, split, _ in dataset.rejected()], dtype=str).value_counts()
    splits, files = dataset.splits(), dataset.files()
    return "\n".join(_line(split, splits.get(split, {"samples": 0, "shards": 0}), rejected.get(split, 0), files)
                     for split in sorted({*splits, *rejected.index}))


def _line(split: str, count: dict[str, int], rejected: int, files: dict[str, Any]) -> str:
    size = sum(entry["size"] for name, entry in files.items() if name.startswith(f"{split}-") and name.endswith(".tar"))
    return (f"{split}: {count['samples']:,} photos packed, {rejected:,} rejected, {count['shards']:,} shards, "
            f"{size / 1e6:,.1f} MB")


if __name__ == "__main__":
    run(main)
