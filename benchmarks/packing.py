"""How fast make_shards.py packs, next to other packers on the same photos, and how much memory it takes.

    benchmarks/peers/install.sh                             the other packers, once
    python benchmarks/packing.py --work FOLDER [--json FILE] [--against tar gray_check …]
    python benchmarks/packing.py --work FOLDER --memory [--samples 10000 1000000] [--json FILE]

Contests, each with baseline JPEGs of 800×600 and 72 KB on average (made in FOLDER once, read from the page cache):
  check    they keep their bytes, each is decoded as a check; against gray_check, the cheapest check alone
  copy     --no-verify: bytes only; against GNU tar (one process), MDSWriter and ShardWriter
  resize   to a short side of 288, JPEG quality 90; against FFCV's DatasetWriter at max_resolution 384, and against
           MDSWriter and ShardWriter fed by the function that make_shards itself resizes with
All but tar use --workers processes. Rounds are interleaved (A B C A B C …); a ratio is of one round, the figure is the
median of all. Rates are of packing alone (packing_contests.py says what each clock holds), those of make_shards also
with its start. --memory packs tiny JPEGs out of one zip and reports the peak of resident memory.
"""
import argparse
from pathlib import Path
from typing import Any

from machine import publish
from packing_contests import CONTESTS, OPPONENTS, Contest, Job, peers_python, seconds_of_round
from packing_memory import memory_report
from packing_photos import make_photos, write_table
from packing_report import PACKAGES, PEER_PACKAGES, memory_text, peer_versions, speed_text, tar_version

from arcshard.console import Parser, UserError, check_least, progress, run
from arcshard.files import write_text
from preprocess.packing.pack import REHEARSED


def main() -> None:
    args = parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    publish(args, PACKAGES, *((memory_report, memory_text) if args.memory else (speed_report, speed_text)))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder on the disk to measure; photos are kept there")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="made by install.sh (default: .peers)")
    parser.add_argument("--against", nargs="+", choices=OPPONENTS, default=OPPONENTS, help="default: all")
    parser.add_argument("--photos", type=int, default=16_000, help="of contests check and copy (default: 16000)")
    parser.add_argument("--resized", type=int, default=4000, help="photos of contest resize (default: 4000)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed; takes minutes")
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 1_000_000],
                        help="numbers of photos of --memory (default: 10000 1000000)")
    parser.add_argument("--json", type=Path, help="also write every round's figures here")
    args = parser.parse_args()
    check_least(args, REHEARSED + 1, "photos", "resized")
    check_least(args, 1, "rounds", "workers")
    if min(args.samples) < 1:
        raise UserError(f"--samples must be numbers of at least 1, not {min(args.samples)}")
    return args


def speed_report(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every contender in every round, with what they depend on."""
    peers = peers_python(args.peers, args.against)
    contests = [contest for contest in CONTESTS if set(contest.goals) & set(args.against)]
    versions = tar_version() | peer_versions(peers, PEER_PACKAGES)
    counts = {contest.name: args.resized if contest.name == "resize" else args.photos for contest in contests}
    photos = make_photos(args.work, max(counts.values()), args.workers)
    jobs = [contest_job(contest, photos[:counts[contest.name]], args) for contest in contests]
    rounds = [{job.contest.name: seconds_of_round(job, args.against, peers) for job in jobs}
              for _ in progress(range(args.rounds), unit="round", what="pack")]
    return {"peers": versions, "settings": {"workers": args.workers, "photos": counts}, "rounds": rounds}


def contest_job(contest: Contest, photos: list[Path], args: argparse.Namespace) -> Job:
    """The contest's photos, and what the contenders read of them, in the work folder."""
    job = Job(contest, args.work, photos, args.workers)
    write_text(job.listing, "".join(f"{photo}\n" for photo in job.photos))
    write_table(job.table, [photo.stem for photo in job.photos])
    write_table(job.small_table, [photo.stem for photo in job.small])
    return job


if __name__ == "__main__":
    run(main)
