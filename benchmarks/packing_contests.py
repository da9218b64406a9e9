"""The contests: who packs what, with which commands, and how long each takes.

The time of packing alone is compared. The peers' runners (benchmarks/peers/) start their clock behind the imports; tar
has none. make_shards.py is timed as a whole, and from its time and photos those of a small packing are taken off
(median of the rounds): so Python's start, the imports, the start of the workers and the estimate from
DISK_CHECK_PHOTOS photos fall out. Only make_shards.py calls fsync, and its time holds that; the others leave their
data to the kernel.
"""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import joblib
import numpy as np
from cv2.typing import MatLike

from arcshard.console import UserError, progress
from arcshard.files import write_text
from preprocess.demo.sources import LANDMARKS, check_package
from preprocess.demo.views import load_source
from preprocess.packing.pack import DISK_CHECK_PHOTOS

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
    Contest("copy", ("--no-verify",), (), {"tar": 0.75, "mds_writer": None, "shard_writer": None}),
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
        return self.photos[:DISK_CHECK_PHOTOS]

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
        raise UserError(f"there is no Python in {peers}, where the packers and loaders to compare with should be: "
                        "run benchmarks/peers/install.sh, or choose others with --against")
    return python


def seconds_of_round(job: Job, opponents: Sequence[str], peers: Path | None) -> dict[str, float]:
    """Run each contender once; seconds by name (SMALL: make_shards.py on the few photos)."""
    for photo in job.photos:
        photo.read_bytes()  # into the page cache
    size = -(-DISK_CHECK_PHOTOS // job.workers)  # so that each worker starts
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
        raise UserError(f"only {packed} of {count} photos were packed: see {out / 'rejected.csv'}")
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
    """The folder WORK/out, empty; earlier data are deleted or flushed to the disk, before the next timing starts."""
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
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{command[1]} failed with exit code {done.returncode} ({why}): run it by itself to see more")
    return done.stdout


# Versions of what is compared with.

VERSIONS = ("import json, sys, importlib.metadata as m; "
            "there = {d.metadata['Name'].lower(): d.version for d in m.distributions()}; "
            "print(json.dumps({name: there[name] for name in sys.argv[1:] if name in there}))")


def tar_version() -> dict[str, str]:
    said = subprocess.run(["tar", "--version"], capture_output=True, text=True, check=True).stdout
    return {"tar": said.splitlines()[0]}


def peer_versions(python: Path | None, packages: Sequence[str]) -> dict[str, str]:
    """Versions of those that the peers' environment has, by its interpreter; none without one."""
    if python is None:
        return {}
    done = subprocess.run([python, "-c", VERSIONS, *packages], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


# The photos: crops of real photographs, in the layout of Google Landmarks on Kaggle.

PHOTOS = "photos"  # folder
WIDTH, HEIGHT = 800, 600  # pixels
QUALITY = 68  # JPEG quality at which the crops have 72 KB on average
CLASSES = 100
HEADER = "id,landmark_id,label,split"
BATCH = 250  # photos a joblib task


def make_photos(folder: Path, count: int, workers: int) -> list[Path]:
    """Write the first `count` photos, or those of them that are missing, to FOLDER/PHOTOS; returns all their paths.

    Baseline JPEGs, 4:2:0, WIDTH × HEIGHT, about 72 KB: they are in normal form, so that packing keeps their bytes. Each
    is a pure function of its number. Raises UserError if the package of the photographs is not installed.
    """
    check_package()
    paths = [photo_path(folder.resolve() / PHOTOS, photo_id(number)) for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    batches = [missing[start:start + BATCH] for start in range(0, len(missing), BATCH)]
    done = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(
        joblib.delayed(_write_crops)(batch, [paths[number] for number in batch]) for batch in batches)
    for _ in progress(done, total=len(batches), unit=f"× {BATCH} photos", what="make photos", disable=not batches):
        pass
    return paths


def photo_id(number: int) -> str:
    """16 hexadecimal digits, as Google Landmarks names its photos."""
    return hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest()


def photo_path(folder: Path, key: str) -> Path:
    return folder.joinpath(*key[:3], f"{key}.jpg")


def write_table(path: Path, keys: list[str]) -> None:
    """The sample table of those photos: split train, CLASSES classes (fewer if there are fewer photos)."""
    rows = (f"{key},{1000 + number % CLASSES},{number % CLASSES},train" for number, key in enumerate(keys))
    write_text(path, "\n".join([HEADER, *rows]) + "\n")


@cache
def _photographs() -> list[MatLike]:
    """Real photographs that are large enough, BGR uint8."""
    loaded = (load_source(source) for sources in LANDMARKS.values() for source in sources)
    return [photo for photo in loaded if photo.shape[0] >= HEIGHT and photo.shape[1] >= WIDTH]


def _write_crops(numbers: list[int], paths: list[Path]) -> None:
    for number, path in zip(numbers, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".part")
        aside.write_bytes(_crop(number))
        aside.replace(path)


def _crop(number: int) -> bytes:
    rng = np.random.default_rng(number)
    photos = _photographs()
    photo = photos[rng.integers(len(photos))]
    y, x = (rng.integers(side - cut + 1) for side, cut in zip(photo.shape, (HEIGHT, WIDTH)))
    done, data = cv2.imencode(".jpg", photo[y:y + HEIGHT, x:x + WIDTH], (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    if not done:
        raise UserError("the installed build of OpenCV cannot write JPEG: install opencv-python-headless")
    return data.tobytes()
