"""Which loaders run against which, on what, and how fast each is.

Every contender is a process of its own that times itself (benchmarks/peers/loader_runner.py), all with the same number
of threads or worker processes. Contenders that cannot run here are named with the reason, and the contest goes on.
"""
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packing_contests import HEIGHT, QUALITY, ROOT, RUNNERS, answer, make_photos, photo_path, write_table

from arcshard.console import UserError
from arcshard.files import write_text
from shards import Dataset

# The photos, in every form that a contender reads.

SHARDS = 4  # each worker of the webdataset library needs one
PACKED_QUALITY = 90  # JPEG quality of photos that are resized


class Form(NamedTuple):
    """A size of the photos. short_side: pixels; None: the originals' bytes as they are."""

    name: str
    short_side: int | None


ORIGINALS, PACKED, TINY = Form("originals", None), Form("short288", 288), Form("tiny", 64)


def make_form(form: Form, work: Path, count: int, workers: int) -> Path:
    """The folder of `count` photos as files and as arcshard's shards, the same bytes in both; kept for the next run.

    photos/ has the files, list.txt their paths, originals.txt those they were made of, dataset/ the shards.
    """
    folder = work.resolve() / f"{form.name}-{count}"
    originals = work.resolve() / f"{ORIGINALS.name}-{count}"
    photos = make_photos(originals, count, workers)
    once(folder / "dataset", lambda out: pack(form, photos, originals, out, workers))
    once(folder / "photos", lambda out: unpack(Dataset(folder / "dataset", "train"), out))
    write_list(folder / "originals.txt", photos)
    write_list(folder / "list.txt", sorted((folder / "photos").rglob("*.jpg")))
    return folder


def write_list(path: Path, photos: Sequence[Path]) -> None:
    write_text(path, "".join(f"{photo}\n" for photo in photos))


def pack(form: Form, photos: Sequence[Path], originals: Path, out: Path, workers: int) -> None:
    table = out.with_suffix(".csv")
    write_table(table, [photo.stem for photo in photos])
    resize = ["--short-side", form.short_side, "--quality", PACKED_QUALITY] if form.short_side else []
    answer([sys.executable, ROOT / "preprocess" / "make_shards.py", "--samples", table, "--images",
            originals / "photos", "--out", out, "--workers", workers, "--shard-size", -(-len(photos) // SHARDS),
            *resize])


def unpack(dataset: Dataset, out: Path) -> None:
    """The dataset's photos as files."""
    for i, key in enumerate(dataset.index["key"].tolist()):
        path = photo_path(out, key.decode())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dataset.read(i))


def pack_with(peer: str, form: Form, folder: Path, python: Path) -> None:
    """The same photos in a peer's own format, in FOLDER/PEER: ffcv's from the originals, others' byte by byte."""
    options = ["--list", folder / "list.txt", "--workers", 1]
    if peer == "ffcv":  # cannot take JPEGs as they are: encodes again, at a quality that gives about the same bytes
        options = ["--list", folder / "originals.txt", "--short-side", form.short_side or HEIGHT,
                   "--quality", PACKED_QUALITY if form.short_side else QUALITY]

    def write(out: Path) -> None:
        out.mkdir()
        answer([python, RUNNERS / f"{peer}_writer.py", "--out", out, *options], PYTHONPATH=str(ROOT))

    once(folder / peer, write)


def once(path: Path, make: Callable[[Path], None]) -> None:
    """make(a path beside it), then rename: what is there under its name is whole, and not made again."""
    if not path.exists():
        aside = path.with_name(f"{path.name}-part")
        shutil.rmtree(aside, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(aside)
        aside.rename(path)


# The contests.

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
