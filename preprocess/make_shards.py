"""Pack photos into a dataset of tar shards.

    python preprocess/make_shards.py --samples samples.csv --images DIR|ZIP|TAR… --out DATASET
        [--names train_label_to_category.csv] [--short-side N] [--quality 90] [--no-verify] [--shard-size 1000]
        [--seed 0] [--workers N] [--backend loky|dask|ray] [--scheduler ADDRESS] [--rehearse N] [--append]

--images names, in order of trust, folders, zips and tars, as paths or as URLs of fsspec (s3://…, gs://…); archives
are read where they lie, nothing is unpacked. A photo is found by the table's column path (relative to the folder,
or a name in the archive) or, without one, by its id: a/b/c/<id>.jpg (a, b, c: its first three characters), the same
under train/, test/ or index/, or <id>.jpg; in an archive <id>.jpg in any folder.

--names gives landmarks the names that classes.csv has and answers show.

Killed at any moment, the same command goes on where it stopped. Photos that cannot be packed go to
DATASET/rejected.csv with the reason.
"""
import argparse
import tempfile
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from arcshard.console import Parser, UserError, run
from preprocess.engine import Engine
from preprocess.packing.estimate import rehearse
from preprocess.packing.existing import Before
from preprocess.packing.options import PackOptions
from preprocess.packing.output import open_output
from preprocess.packing.pack import pack
from preprocess.samples.classes import read_names
from preprocess.samples.sample_table import check_samples, read_samples, shuffled
from preprocess.sources import open_source


def main() -> None:
    args = parse_args()
    options = PackOptions(args.short_side, args.quality, args.verify, args.shard_size, args.seed)
    engine = Engine(args.workers, args.backend, args.scheduler)
    samples = read_samples(args.samples)
    if args.rehearse is not None:
        print(rehearsal(samples, args.images, options, args.rehearse, args.workers))
        return
    names = read_names(args.names) if args.names else {}
    if not pack(samples, args.images, args.out, options, engine, args.append, names):
        print(f"already packed: {args.out} is what this command makes")
    print(summary(args.out))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="the table that clean.py wrote")
    parser.add_argument("--images", nargs="+", required=True, metavar="DIR|ZIP|TAR", help="where the photos are")
    parser.add_argument("--out", required=True, help="folder or URL of the dataset, made if missing")
    parser.add_argument("--names", type=Path, help="table with the columns landmark_id and category")
    parser.add_argument("--short-side", type=int, help="scale larger photos down to it, in pixels")
    parser.add_argument("--quality", type=int, default=90, help="of JPEGs that must be encoded (default: 90)")
    parser.add_argument("--no-verify", dest="verify", action="store_false",
                        help="do not decode photos that keep their bytes: faster, but damaged ones are packed too")
    parser.add_argument("--shard-size", type=int, default=1000, help="photos a shard (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle (default: 0)")
    parser.add_argument("--workers", type=int, default=joblib.cpu_count(), help="processes (default: cores)")
    parser.add_argument("--backend", default="loky", help="loky (default): processes here; dask, ray: a cluster")
    parser.add_argument("--scheduler", help="address of a running cluster (tcp://… for dask)")
    parser.add_argument("--rehearse", type=int, metavar="N", help="try N photos, predict size and time, write nothing")
    parser.add_argument("--append", action="store_true", help="add the rows that a finished DATASET does not hold")
    return parser.parse_args()


def rehearsal(samples: pd.DataFrame, images: list[str], options: PackOptions, count: int, workers: int) -> str:
    """What packing would take, for the user. Raises UserError for a count below 1."""
    if count < 1:
        raise UserError(f"--rehearse must be at least 1, not {count}")
    check_samples(samples)
    with tempfile.TemporaryDirectory(prefix="arcshard-") as cache:
        source = open_source(images, Path(cache), workers)
        return rehearse(shuffled(samples, options.seed), source, options, count).text(workers)


def summary(out: str) -> str:
    """A line a split: photos packed and rejected, shards and megabytes of the dataset `out`."""
    before = Before(open_output(out))
    rejected = pd.Series([split for _, split, _ in before.rejected()], dtype=str).value_counts()
    splits, files = before.splits(), before.files()
    return "\n".join(_line(split, splits.get(split, {"samples": 0, "shards": 0}), rejected.get(split, 0), files)
                     for split in sorted({*splits, *rejected.index}))


def _line(split: str, count: dict[str, int], rejected: int, files: dict[str, Any]) -> str:
    size = sum(entry["size"] for name, entry in files.items() if name.startswith(f"{split}-") and name.endswith(".tar"))
    return (f"{split}: {count['samples']:,} photos packed, {rejected:,} rejected, {count['shards']:,} shards, "
            f"{size / 1e6:,.1f} MB")


if __name__ == "__main__":
    run(main)
