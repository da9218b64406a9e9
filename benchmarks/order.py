"""What the planned order costs, whatever the number of samples; and how long a loader takes to resume.

    python benchmarks/order.py --data data/demo/dataset [--batch-size 64] [--rounds 20] [--json FILE]

Interleaved rounds of
  order     the samples of a batch at a position deep in the stream, for datasets of 10^6, 10^8 and 10^10 samples
  continue  a new Loader's first batch after load_state_dict, at the stream's start, in mid-epoch and after 10^6 epochs;
            it builds a DALI pipeline and decodes three batches, so "steady", one batch of a loader that has long run,
            is beside it
"""
import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from machine import listed, median_range, publish

from arcshard.console import Parser, check_least, progress, run
from loader import Loader
from loader.order import sample_at
from shards import Dataset

PACKAGES = ("numpy", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "opencv-python-headless")
SIZES = (10**6, 10**8, 10**10)  # samples
EPOCHS = (0.0, 3.5, 10.0**6)  # where a loader continues


def main() -> None:
    args = parse_args()
    publish(args, PACKAGES, measure, text)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--size", type=int, default=128, help="side of the images, pixels (default: 128)")
    parser.add_argument("--rounds", type=int, default=20, help="default: 20")
    parser.add_argument("--json", type=Path, help="also write every round's figures here")
    args = parser.parse_args()
    check_least(args, 1, "batch_size", "size", "rounds")
    return args


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Every round's figures, with what they depend on."""
    dataset = Dataset(args.data, "train")
    steady = iter(make_loader(dataset, args))
    list(islice(steady, 5))
    rounds = [one_round(dataset, steady, args) for _ in progress(range(args.rounds), unit="round", what="measure")]
    return {"batch_size": args.batch_size, "rounds": rounds}


def one_round(dataset: Dataset, steady: Any, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of each part."""
    places = np.arange(args.batch_size)
    times = {f"order {size:.0e}": timed(lambda: sample_at(size * 7 // 2 + places, size, 0)) for size in SIZES}
    times |= {f"continue {epochs:g}": timed(lambda: first_batch(dataset, epochs, args)) for epochs in EPOCHS}
    return times | {"steady": timed(lambda: next(steady))}


def first_batch(dataset: Dataset, epochs: float, args: argparse.Namespace) -> None:
    loader = make_loader(dataset, args)
    loader.load_state_dict({**loader.state_dict(), "position": int(epochs * len(dataset))})
    next(iter(loader))


def make_loader(dataset: Dataset, args: argparse.Namespace) -> Loader:
    return Loader(dataset, batch_size=args.batch_size, size=args.size)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def text(report: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    columns = {name: [r[name] for r in report["rounds"]] for name in report["rounds"][0]}
    ratio = [big / small for big, small in zip(columns["order 1e+10"], columns["order 1e+06"])]
    lines = [listed(report["machine"]), f"batches of {report['batch_size']}"]
    lines += [f"{name:16}{median_range(values, ',.2f')} ms" for name, values in columns.items()]
    return "\n".join([*lines, f"{'10^10 / 10^6':16}{median_range(ratio, '.2f')}"])


if __name__ == "__main__":
    run(main)
