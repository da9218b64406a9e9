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
import io
import shutil
import statistics
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from machine import listed, median_range, publish
from packing_contests import (
    ARCSHARD,
    CONTESTS,
    OPPONENTS,
    ROOT,
    SMALL,
    Contest,
    Job,
    make_photos,
    peer_versions,
    peers_python,
    photo_id,
    seconds_of_round,
    tar_version,
    write_table,
)
from PIL import Image
from usage import usage_of

from arcshard.console import Parser, UserError, check_least, progress, run
from arcshard.files import write_text
from preprocess.packing.pack import DISK_CHECK_PHOTOS


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
    check_least(args, DISK_CHECK_PHOTOS + 1, "photos", "resized")
    check_least(args, 1, "rounds", "workers")
    if min(args.samples) < 1:
        raise UserError(f"--samples has {min(args.samples)}: give numbers of at least 1")
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


# The report: packages whose versions the figures travel with, and the figures as text.

PACKAGES = ("simplejpeg", "jpeglib", "opencv-python-headless", "pillow", "numpy", "joblib")
PEER_PACKAGES = ("ffcv", "mosaicml-streaming", "webdataset", "opencv-python", "numpy")

Seconds = dict[str, float]  # contender -> seconds of a round


def speed_text(report: dict[str, Any]) -> str:
    """Median (least to most) of the rounds: rates, and make_shards' rate as a multiple of each opponent's."""
    lines = [listed(report["machine"]), listed(report["peers"])]
    for contest in CONTESTS:
        if contest.name in report["settings"]["photos"]:
            rounds = [each[contest.name] for each in report["rounds"]]
            lines += contest_lines(contest, rounds, report["settings"]["photos"][contest.name])
    return "\n".join(lines)


def contest_lines(contest: Contest, rounds: list[Seconds], count: int) -> list[str]:
    small = statistics.median(seconds[SMALL] for seconds in rounds)
    ours = [(count - DISK_CHECK_PHOTOS) / (seconds[ARCSHARD] - small) for seconds in rounds]
    lines = [f"{contest.name}, {count:,} photos", _row(ARCSHARD, ours, "photos/s"),
             _row("", [count / seconds[ARCSHARD] for seconds in rounds], f"photos/s with its start of {small:.1f} s")]
    for name, goal in contest.goals.items():
        if name in rounds[0]:
            theirs = [count / seconds[name] for seconds in rounds]
            ratio = median_range((a / b for a, b in zip(ours, theirs)), ".2f")
            aim = f", goal {goal:.2f}" if goal else ""
            lines.append(_row(name, theirs, f"photos/s; arcshard is {ratio} times as fast{aim}"))
    return lines


def memory_text(report: dict[str, Any]) -> str:
    lines = [listed(report["machine"])]
    lines += [f"{entry['samples']:>12,} samples: parent {entry['parent_mb']:,.0f} MB, largest worker "
              f"{entry['worker_mb']:,.0f} MB, {entry['seconds']:,.0f} s" for entry in report["memory"]]
    return "\n".join(lines)


def _row(name: str, rates: Iterable[float], unit: str) -> str:
    return f"  {name:13}{median_range(rates, ',.0f')} {unit}"


# Peak of resident memory at several numbers of tiny photos, all in one stored zip: no inode each.

MAKE_SHARDS = ROOT / "preprocess" / "make_shards.py"
SIDE = 16  # pixels of a photo


def memory_report(args: argparse.Namespace) -> dict[str, Any]:
    """{"memory": one entry for each of args.samples: samples, peaks of parent and largest worker in MB, seconds}."""
    work = args.work.resolve()
    return {"memory": [{"samples": count} | _pack(*_tiny_photos(work, count), work / "out", args.workers)
                       for count in args.samples]}


def _tiny_photos(work: Path, count: int) -> tuple[Path, Path]:
    """A zip of `count` photos and their sample table; what an earlier call made is used again."""
    archive, table = work / f"tiny-{count}.zip", work / f"tiny-{count}.csv"
    if not table.exists():
        keys = [photo_id(number) for number in range(count)]
        photo = _tiny_photo()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as f:
            for key in progress(keys, unit="photo", what="make zip"):
                f.writestr(f"{'/'.join(key[:3])}/{key}.jpg", photo)
        write_table(table, keys)
    return archive, table


def _tiny_photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "teal").save(out, "JPEG", subsampling="4:2:0")
    return out.getvalue()


def _pack(archive: Path, table: Path, out: Path, workers: int) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    usage, _ = usage_of([MAKE_SHARDS, "--samples", table, "--images", archive, "--out", out, "--workers", workers])
    shutil.rmtree(out, ignore_errors=True)
    return usage._asdict()


if __name__ == "__main__":
    run(main)
