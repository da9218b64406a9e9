"""Which loaders run against which, on what, and how fast each is.

Every contender is a process of its own that times itself (benchmarks/peers/loader_runner.py), all with the same number
of threads or worker processes. Contenders that cannot run here are named with the reason, and the contest goes on.
"""
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loaders_forms import ORIGINALS, PACKED, TINY, Form, make_form, pack_with
from packing_contests import ROOT, RUNNERS, answer

from arcshard.console import UserError

WARMED = 8  # batches that a runner takes before its clock starts: peers/loader_runner.py, WARM
ARCSHARD, DECODE, READ, DALI = "arcshard", "decode", "read", "dali"


class Contender(NamedTuple):
    """How one is run: RUNNER_loader.py with options, in the peers' environment or the project's own."""

    runner: str
    options: Sequence[str] = ()
    is_peer: bool = False


CONTENDERS = {
    ARCSHARD: Contender("arcshard"), READ: Contender("read"), DECODE: Contender("decode"), DALI: Contender("dali"),
    "dali_rough": Contender("dali", ("--no-antialias",)), "timm": Contender("timm"),
    "torchvision": Contender("torchvision"), "webdataset": Contender("webdataset"),
    "ffcv": Contender("ffcv", is_peer=True), "mds": Contender("mds", is_peer=True),
    "litdata": Contender("litdata", is_peer=True), "spdl": Contender("spdl", is_peer=True)}
OWN_FORMAT = ("ffcv", "mds", "litdata")
PARTS = (READ, DECODE)  # of arcshard's loader: no contenders, but limits
OTHERS = ("timm", "torchvision", "webdataset", "ffcv", "mds", "litdata", "spdl")  # than DALI
OPPONENTS = [name for name in CONTENDERS if name != ARCSHARD]


class Contest(NamedTuple):
    """What all read, and the goals: the least ratios of arcshard's rate to an opponent's and to the best of OTHERS."""

    name: str
    form: Form
    size: int
    goals: dict[str, float]
    best: float | None
    least_read: float | None
    reads_originals: Sequence[str] = ()


CONTESTS = (
    Contest("originals", ORIGINALS, 224, {DALI: 1.5, DECODE: 0.85}, 1.2, None),
    Contest("packed", PACKED, 224, {DALI: 2.0, "timm": 8.0}, 1.5, None, reads_originals=("timm",)),
    Contest("tiny", TINY, 64, {}, None, 40_000),
)


class Job(NamedTuple):
    """A contest made ready. folders: contender -> the form it reads; absent: contender -> why it does not run."""

    contest: Contest
    folders: dict[str, Path]
    absent: dict[str, str]
    python: Path | None


def prepare(contest: Contest, opponents: Sequence[str], args: Any, python: Path | None) -> Job:
    """Photos and packed forms; a peer that cannot pack is absent."""
    originals = make_form(ORIGINALS, args.work, args.photos, args.workers)
    folder = make_form(contest.form, args.work, args.photos, args.workers)
    job = Job(contest, {}, {}, python)
    for name in (ARCSHARD, *opponents):
        try:
            if name in OWN_FORMAT and python:
                pack_with(name, contest.form, folder, python)
            job.folders[name] = originals if name in contest.reads_originals else folder
        except UserError as error:
            job.absent[name] = str(error)
    return job


def rates_of_round(job: Job, args: Any) -> dict[str, float]:
    """Run each contender once; images a second by name. One that fails is absent from then on."""
    rates = {}
    for folder in set(job.folders.values()):
        into_page_cache(folder)
    for name, folder in job.folders.items():
        if name not in job.absent:
            try:
                rates[name] = measured(CONTENDERS[name], folder, job, args)
            except UserError as error:
                if name == ARCSHARD:
                    raise
                job.absent[name] = str(error)
    return rates


def measured(contender: Contender, folder: Path, job: Job, args: Any) -> float:
    """What the contender's runner says, images/s."""
    python = job.python if contender.is_peer else sys.executable
    said = answer([python, RUNNERS / f"{contender.runner}_loader.py", "--form", folder, "--size", job.contest.size,
                   "--batch-size", args.batch_size, "--workers", args.workers, "--seconds", args.seconds,
                   *contender.options], PYTHONPATH=str(ROOT))
    return json.loads(said.splitlines()[-1])["images_per_s"]


def into_page_cache(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()
