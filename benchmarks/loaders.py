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
from pathlib import Path
from typing import Any

from loaders_contests import CONTENDERS, CONTESTS, OPPONENTS, WARMED, prepare, rates_of_round
from loaders_memory import memory_report
from loaders_report import PACKAGES, PEER_PACKAGES, memory_text, speed_text
from machine import publish
from packing_contests import peers_python
from packing_report import peer_versions

from arcshard.console import Parser, UserError, check_least, progress, run


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
        raise UserError(f"--seconds must be positive, not {args.seconds:g}")
    least = 2 * WARMED * args.workers * args.batch_size
    if args.photos < least:
        raise UserError(f"--photos must be at least {least}, so that an epoch outlasts the batches that each of "
                        f"--workers warms up with, not {args.photos}")
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


if __name__ == "__main__":
    run(main)
