"""How fast the loader is, next to what a user would pick instead, on the same photos, and how much memory it takes.

    benchmarks/peers/install.sh                             the other loaders, once
    python benchmarks/loaders.py --work FOLDER [--json FILE] [--contests originals packed tiny] [--against dali timm …]
    python benchmarks/loaders.py --work FOLDER --memory [--json FILE]

Contests, each a random crop of area 0.1 to 1, resized to a square, flipped by chance, uint8 batches out:
  originals  JPEGs of 800×600 and 72 KB on average (made in FOLDER once, read from the page cache), to 224 pixels
  packed     the same photos at a short side of 288, each loader from its own format; timm from the original files
  tiny       at a short side of 64, to 64 pixels: where overhead shows
All use --workers threads or processes. `decode` is DALI's decode of the crops alone, `read` the order and read alone:
parts of arcshard's loader. `dali` is DALI's own webdataset reader with its default resize, `dali_rough` the same
without antialias, as arcshard resizes. Rounds are interleaved (A B C A B C …); a ratio is of one round, the figure is
the median of all. --memory runs arcshard's loader for ten epochs and reports the growth of anonymous memory.
"""
import argparse
import statistics
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from loaders_contests import (
    ARCSHARD,
    CONTENDERS,
    CONTESTS,
    OPPONENTS,
    ORIGINALS,
    OTHERS,
    PARTS,
    READ,
    WARMED,
    Contest,
    make_form,
    prepare,
    rates_of_round,
)
from machine import listed, median_range, publish
from packing_contests import peer_versions, peers_python

from arcshard.console import Parser, UserError, check_least, progress, run
from arcshard.memory import keep_freed_memory
from loader import Loader
from loader.pipeline import PREFETCH
from shards import Dataset


def main() -> None:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    publish(args, PACKAGES, *((memory_report, memory_text) if args.memory else (speed_report, speed_text)))


def parse_args() -> argparse.Namespace:
    names = [contest.name for contest in CONTESTS]
    parser = Parser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the photos in all forms; kept")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="made by install.sh (default: .peers)")
    parser.add_argument("--contests", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--against", nargs="+", choices=OPPONENTS, default=OPPONENTS, help="default: all")
    parser.add_argument("--photos", type=int, default=4000, help="default: 4000")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--seconds", type=float, default=3.0, help="each loader is timed a round (default: 3)")
    parser.add_argument("--workers", type=int, default=2, help="threads or processes of each loader (default: 2)")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument("--json", type=Path, help="also write every round's figures here")
    args = parser.parse_args()
    check_least(args, 1, "batch_size", "rounds", "workers")
    if args.seconds <= 0:
        raise UserError(f"--seconds is {args.seconds:g}: give a positive number")
    least = 2 * WARMED * args.workers * args.batch_size
    if args.photos < least:
        raise UserError(f"--photos is {args.photos}: give at least {least}, so that an epoch outlasts the batches that "
                        "each of --workers warms up with")
    return args


def speed_report(args: argparse.Namespace) -> dict[str, Any]:
    """Images a second of every contender in every round, with what they depend on."""
    peers = [name for name in args.against if CONTENDERS[name].is_peer]
    python = peers_python(args.peers, peers)
    jobs = [prepare(contest, args.against, args, python) for contest in CONTESTS if contest.name in args.contests]
    rounds = [{job.contest.name: rates_of_round(job, args) for job in jobs}
              for _ in progress(range(args.rounds), unit="round", what="load")]
    settings = {name: getattr(args, name) for name in ("photos", "batch_size", "workers", "seconds")}
    return {"peers": peer_versions(python, PEER_PACKAGES), "settings": settings,
            "contests": {job.contest.name: {"rounds": [each[job.contest.name] for each in rounds], "absent": job.absent}
                         for job in jobs}}


# The report: rates, ratios, and which goals are met.

PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "timm", "webdataset",
            "opencv-python-headless", "pillow", "numpy")
PEER_PACKAGES = ("ffcv", "mosaicml-streaming", "litdata", "spdl", "torch", "torchvision", "pillow", "opencv-python")

Rates = dict[str, float]  # contender -> images/s of a round


def speed_text(report: dict[str, Any]) -> str:
    """Median (least to most) of the rounds, arcshard's rate as a multiple of each other's, and a verdict a goal."""
    lines = [listed(report["machine"]), listed(report["peers"])]
    for contest in CONTESTS:
        if contest.name in report["contests"]:
            found = report["contests"][contest.name]
            lines += contest_lines(contest, found["rounds"], found["absent"])
    return "\n".join(lines)


def contest_lines(contest: Contest, rounds: list[Rates], absent: dict[str, str]) -> list[str]:
    """Contenders that were absent from a round are named with the reason, without a rate."""
    lines = [f"{contest.name}: {contest.form.name}, {contest.size} px"]
    for name in rounds[0]:
        if name not in absent:
            lines.append(_row(contest, name, rounds))
    others = [name for name in rounds[0] if name in OTHERS and name not in absent]
    if others:
        ratios = [r[ARCSHARD] / max(r[name] for name in others) for r in rounds]
        lines.append(f"  {'best of others':15}arcshard is {median_range(ratios, '.2f')} times as fast"
                     f"{verdict(ratios, contest.best)}")
    return lines + [f"  {name:15}did not run: {why}" for name, why in absent.items()]


def verdict(values: Iterable[float], goal: float | None) -> str:
    """The goal, and whether the median reaches it."""
    if goal is None:
        return ""
    return f", goal {goal:,g}: {'met' if statistics.median(values) >= goal else 'missed'}"


def _row(contest: Contest, name: str, rounds: list[Rates]) -> str:
    rates = [r[name] for r in rounds]
    line = f"  {name:15}{median_range(rates, ',.0f')} images/s"
    if name == ARCSHARD:
        return line
    if name == READ:
        return line + verdict(rates, contest.least_read)
    ratios = [r[ARCSHARD] / r[name] for r in rounds]
    what = "of it" if name in PARTS else "times as fast"
    return f"{line}; arcshard is {median_range(ratios, '.2f')} {what}{verdict(ratios, contest.goals.get(name))}"


def memory_text(report: dict[str, Any]) -> str:
    """Growth after each epoch, in MB beyond the start, and the bound."""
    found = report["memory"]
    grown = found["grown_mb"]
    met = "kept" if max(grown) <= found["bound_mb"] else "broken"
    return "\n".join([
        listed(report["machine"]),
        f"memory beyond the start and the maps after each of {len(grown)} epochs of {found['samples']:,} photos, MB: "
        + " ".join(f"{value:.0f}" for value in grown),
        f"bound: {found['batches']} batches of {found['batch_mb']:.0f} MB + {found['rest_mb']} MB = "
        f"{found['bound_mb']:.0f} MB: {met}"])


# Memory, epoch after epoch: anonymous pages, so without the maps of shards and index.

EPOCHS, SIZE = 10, 224
BATCHES = PREFETCH + 2  # in flight: those in DALI, one that is resized, one that is handed out
REST = 100  # MB: DALI's threads, decoders and graph


def memory_report(args: argparse.Namespace) -> dict[str, Any]:
    """{"memory": MB grown at the end of each epoch, the bound, and what it is made of}."""
    keep_freed_memory()
    dataset = Dataset(make_form(ORIGINALS, args.work, args.photos, args.workers) / "dataset", "train")
    loader = Loader(dataset, batch_size=args.batch_size, size=SIZE, num_threads=args.workers)
    before = anonymous_mb()
    batches = iter(loader)
    grown = []
    for _ in progress(range(EPOCHS), unit="epoch", what="load"):
        for _ in islice(batches, -(-len(dataset) // args.batch_size)):
            pass
        grown.append(anonymous_mb() - before)
    batch = args.batch_size * largest_mb(dataset)
    return {"memory": {"samples": len(dataset), "grown_mb": grown, "batches": BATCHES, "batch_mb": batch,
                       "rest_mb": REST, "bound_mb": BATCHES * batch + REST}}


def largest_mb(dataset: Dataset) -> float:
    """The largest photo, decoded."""
    index = dataset.index
    return float((index["width"].astype(int) * index["height"]).max()) * 3 / 1e6


def anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    run(main)
