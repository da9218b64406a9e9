"""Pack photos into a dataset of tar shards.

    python preprocess/make_shards.py --samples samples.csv --images DIR --out DATASET
        [--workers N] [--short-side N] [--quality 90] [--shard-size 1000] [--seed 0]

A photo is DIR/a/b/c/<id>.jpg (a, b, c: the first three characters of its id), the same under DIR/train,
DIR/test or DIR/index, or DIR/<id>.jpg; the first that exists is taken. Killed at any moment, the same
command goes on where it stopped. Photos that cannot be packed go to DATASET/rejected.csv with the reason.
"""
import argparse
from pathlib import Path

import joblib
import pandas as pd

from arcshard.console import Parser, UserError, run
from preprocess.packing import PackOptions, pack
from preprocess.sample_table import read_samples
from shards.format import REJECTED
from shards.manifest import read_manifest


def main() -> None:
    args = parse_args()
    if args.workers < 1:
        raise UserError(f"--workers must be at least 1, not {args.workers}")
    options = PackOptions(args.short_side, args.quality, args.shard_size, args.seed)
    packed = pack(read_samples(args.samples), args.images, args.out, options, args.workers)
    if not packed:
        print(f"already packed: {args.out} is what this command makes")
    print(summary(args.out))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="the table that clean.py wrote")
    parser.add_argument("--images", type=Path, required=True, help="folder of photos")
    parser.add_argument("--out", type=Path, required=True, help="folder of the dataset, made if missing")
    parser.add_argument("--workers", type=int, default=joblib.cpu_count(), help="processes (default: cores)")
    parser.add_argument("--short-side", type=int, help="scale larger photos down to it, in pixels")
    parser.add_argument("--quality", type=int, default=90, help="of JPEGs that must be encoded (default: 90)")
    parser.add_argument("--shard-size", type=int, default=1000, help="photos a shard (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle (default: 0)")
    return parser.parse_args()


def summary(out: Path) -> str:
    """A line a split: photos packed and rejected, shards and megabytes of the dataset `out`."""
    manifest = read_manifest(out)
    rejected = pd.read_csv(out / REJECTED, dtype=str, na_filter=False)["split"].value_counts()
    lines = []
    for split in sorted({*manifest["splits"], *rejected.index}):
        count = manifest["splits"].get(split, {"samples": 0, "shards": 0})
        size = sum(entry["size"] for name, entry in manifest["files"].items()
                   if name.startswith(f"{split}-") and name.endswith(".tar"))
        lines.append(f"{split}: {count['samples']:,} photos packed, {rejected.get(split, 0):,} rejected, "
                     f"{count['shards']:,} shards, {size / 1e6:,.1f} MB")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
