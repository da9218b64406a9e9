"""Who packs against whom, with which commands, and how long each takes.

The time of packing alone is compared. The peers' runners (benchmarks/peers/) start their clock behind the imports; tar
has none. make_shards.py is timed as a whole, and from its time and photos those of a small packing are taken off
(median of the rounds): so Python's start, the imports, the start of the workers and the rehearsal of REHEARSED photos
fall out. Only make_shards.py calls fsync, and its time holds that; the others leave their data to the kernel.
"""
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from packing_photos import PHOTOS

from arcshard.console import UserError
from preprocess.packing.pack import REHEARSED

ROOT = Path(__file__).resolve().parent.parent
RUNNERS = ROOT / "benchmarks" / "peers"
ARCSHARD, SMALL = "arcshard", "arcshard_small"  # names in a round's seconds
SHORT_SIDE = 288  # pixels; a photo of 800×600 becomes 384×288, as with FFCV's max_resolution of 384
RESIZE = ("--short-side", str(SHORT_SIDE), "--quality", "90")


class Contest(NamedTuple):
    """One way to pack, by the options that ask for it: make_shards.py's, those of the peers' runners, and the goals.

    goals: opponent -> the least ratio of make_shards' rate to its (None: a figure without a goal).
    """

    name: str
    options: Sequence[str]
    peer_options: Sequence[str]
    goals: dict[str, float | None]


CONTESTS = (
    Contest("check", (), (), {"gray_check": 0.85}),
    Contest("copy", ("--no-verify",), (), {"tar": 0.7, "mds_writer": None, "shard_writer": None}),
    Contest("resize", RESIZE, RESIZE, {"ffcv_writer": 1.6, "mds_writer": 1.0, "shard_writer": 1.0}),
)
OPPONENTS = sorted({opponent for contest in CONTESTS for opponent in contest.goals})
# gray_check runs in the project's environment: on the very libjpeg-turbo that make_shards checks with.
WITHOUT_PEERS = ("tar", "gray_check")


class Job(NamedTuple):
    """What is packed in a contest: `photos` (paths), and the files in `work` that name them to the contenders."""

    contest: Contest
    work: Path
    photos: Sequence[Path]
    workers: int

    @property
    def small(self) -> Sequence[Path]:
        """The photos of the small packing."""
        return self.photos[:REHEARSED]

    @property
    def listing(self) -> Path:
        return self.work / f"{self.contest.name}.txt"

    @property
    def table(self) -> Path:
        return self.work / f"{self.contest.name}.csv"

    @property
    def small_table(self) -> Path:
        return self.work / f"{self.contest.name}-small.csv"


def peers_python(peers: Path, opponents: Sequence[str]) -> Path | None:
    """The interpreter of the peers' environment, None if no opponent needs it; raises UserError if it is not there."""
    if set(opponents) <= set(WITHOUT_PEERS):
        return None
    python = peers.absolute() / "bin" / "python"
    if not python.exists():
        raise UserError(f"the peers to compare with run in an environment of their own, but {peers} is none: "
                        "run benchmarks/peers/install.sh, or choose others with --against")
    return python


def seconds_of_round(job: Job, opponents: Sequence[str], peers: Path | None) -> dict[str, float]:
    """Run each contender once; seconds by name (SMALL: make_shards.py on the few photos)."""
    for photo in job.photos:
        photo.read_bytes()  # into the page cache
    size = -(-REHEARSED // job.workers)  # so that each worker starts
    seconds = {SMALL: pack_seconds(job, job.small_table, len(job.small), ("--shard-size", size)),
               ARCSHARD: pack_seconds(job, job.table, len(job.photos))}
    for opponent in job.contest.goals:
        if opponent in opponents:
            seconds[opponent] = tar_seconds(job) if opponent == "tar" else peer_seconds(opponent, job, peers)
    return seconds


def pack_seconds(job: Job, table: Path, count: int, more: Sequence[object] = ()) -> float:
    """Wall time of make_shards.py; raises UserError unless it packs all `count` photos of the table."""
    out = fresh(job.work) / "dataset"
    began = time.perf_counter()
    answer([sys.executable, ROOT / "preprocess" / "make_shards.py", "--samples", table, "--images", job.work / PHOTOS,
            "--out", out, "--workers", job.workers, *job.contest.options, *more])
    taken = time.perf_counter() - began
    packed = json.loads((out / "dataset.json").read_text())["splits"]["train"]["samples"]
    if packed != count:
        raise UserError(f"every photo of a contest must be packed, but {packed} of {count} were: "
                        f"see {out / 'rejected.csv'}")
    return taken


def tar_seconds(job: Job) -> float:
    out = fresh(job.work) / "photos.tar"
    began = time.perf_counter()
    answer(["tar", "--create", "--absolute-names", "--file", out, "--files-from", job.listing])
    return time.perf_counter() - began


def peer_seconds(opponent: str, job: Job, peers: Path | None) -> float:
    """What the clock of the opponent's runner says."""
    python = sys.executable if opponent in WITHOUT_PEERS else peers
    said = answer([python, RUNNERS / f"{opponent}.py", "--list", job.listing, "--out", fresh(job.work),
                   "--workers", job.workers, *job.contest.peer_options], PYTHONPATH=str(ROOT))
    return json.loads(said.splitlines()[-1])["seconds"]


def fresh(work: Path) -> Path:
    """The folder WORK/out, empty; what earlier runs wrote is gone, or on the disk, before the next clock starts."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()
    return out


def answer(command: Sequence[object], **environment: str) -> str:
    """What the command prints on stdout; raises UserError with the last line of its stderr if it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          env={**os.environ, **environment})
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise UserError(f"every contender must end well, but {command[1]} ended with exit code {done.returncode} "
                        f"({why}): run it by itself")
    return done.stdout
