"""How long a training step waits for shards that lie in object storage, beginning with an empty cache.

    python benchmarks/object_storage.py --data s3://bucket/data [--images-per-s 400] [--window 4] [--folder data/x]

Each round reads two epochs as a network that trains --images-per-s would, sleeping for its step, and says:
  start    seconds until the first batch: it needs the first window's shards
  first    share of the time that steps waited in the rest of the first epoch, while all other shards came
  second   the same in the second epoch, when all are in the cache
With --folder, the same dataset on disk is read in each round as well: what a step waits for without any shard to fetch.
"""
import argparse
import tempfile
import time
from itertools import islice

from machine import listed, machine, median_range

from arcshard.console import Parser, UserError, progress, run
from loader import Loader
from shards import CacheConfig, Dataset

EPOCHS = 2
Figures = dict[str, float]


def main() -> None:
    args = parse_args()
    rounds: dict[str, list[Figures]] = {place: [] for place in (args.data, args.folder) if place}
    for _ in progress(range(args.rounds), unit="round", what="measure"):
        for place, figures in rounds.items():
            with tempfile.TemporaryDirectory() as folder:
                figures.append(measured(Dataset(place, "train", CacheConfig(folder, window=args.window)), args))
    print(listed(machine(["nvidia-dali-cuda130", "fsspec", "s3fs"])))
    for place, figures in rounds.items():
        print(f"{place}: start {median_range((one['start'] for one in figures), '.2f')} s, waiting in the first epoch "
              f"{median_range((one['first'] for one in figures), '.2%')}, in the second "
              f"{median_range((one['second'] for one in figures), '.2%')}")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", required=True, help="dataset in object storage, s3://…")
    parser.add_argument("--folder", help="the same dataset on disk")
    parser.add_argument("--images-per-s", type=float, default=400.0, help="pace of the network (default: 400)")
    parser.add_argument("--window", type=int, default=4, help="shards of a window (default: 4)")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--size", type=int, default=128, help="side of the images, pixels (default: 128)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    args = parser.parse_args()
    for name in ("images_per_s", "window", "batch_size", "size", "rounds"):
        if getattr(args, name) <= 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(args, name)}: give a positive number")
    return args


def measured(dataset: Dataset, args: argparse.Namespace) -> Figures:
    """One round's figures."""
    began, step = time.perf_counter(), args.batch_size / args.images_per_s
    loader = Loader(dataset, batch_size=args.batch_size, size=args.size)
    an_epoch = len(dataset) // args.batch_size  # batches
    waits: list[float] = []
    for batch in islice(loader, EPOCHS * an_epoch):
        waits.append(batch.wait if waits else time.perf_counter() - began)
        time.sleep(step)
    first, second = waits[1:an_epoch], waits[an_epoch:]
    share = lambda waited: sum(waited) / (sum(waited) + len(waited) * step)
    return {"start": waits[0], "first": share(first), "second": share(second)}


if __name__ == "__main__":
    run(main)
