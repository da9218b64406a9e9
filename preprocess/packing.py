"""Pack a sample table and its photos into a dataset: the library behind make_shards.py.

    shuffle -> cut into shards -> one task a shard on joblib -> publish

Tasks leave finished shards in OUT/.packing, so that the same call after a kill does only what is missing and
ends with the same bytes.
"""
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from arcshard.console import UserError, progress
from arcshard.files import write_text
from preprocess.publish import finished_shard, publish
from preprocess.sample_table import check_samples, class_ids, digest, shuffled
from preprocess.shard_task import SCRATCH, ShardTask, pack_shard
from shards.format import MANIFEST, UNFINISHED
from shards.manifest import read_manifest

PLAN = "plan.json"


@dataclass(frozen=True)
class PackOptions:
    """What decides the bytes of a dataset, next to the photos. Raises UserError for values out of range."""

    short_side: int | None = None
    """Longest short side in pixels, larger photos are scaled down to it. None: all keep their size."""
    quality: int = 90
    """JPEG quality (1-100) of the photos that must be encoded."""
    shard_size: int = 1000
    """Photos a shard, before rejects."""
    seed: int = 0
    """Of the shuffle."""

    def __post_init__(self) -> None:
        for name in ("short_side", "quality", "shard_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.quality > 100:
            raise UserError(f"--quality must be 1 to 100, not {self.quality}")


def pack(samples: pd.DataFrame, images: Path, out: Path, options: PackOptions, workers: int) -> bool:
    """Pack the photos of `samples` (id, landmark_id, label, split) from `images` into the dataset `out`.

    Equal samples, photos and options give equal bytes, whatever `workers` (processes) and however often the
    call was killed and repeated. Returns False if `out` was finished before. Raises UserError if `out` holds
    anything else, if another process packs into it, if the disk is full, or for samples that the format
    cannot hold.
    """
    check_samples(samples)
    samples = shuffled(samples, options.seed)
    packing = asdict(options) | {"samples_sha256": digest(samples)}
    with _disk_full_is_a_sentence(out), _lock(out):
        if (out / MANIFEST).exists():
            _refuse_changes(out, read_manifest(out)["packing"], packing)
            shutil.rmtree(out / UNFINISHED, ignore_errors=True)  # a kill between the last two steps leaves it
            return False
        if not images.is_dir():
            raise UserError(f"photos are read from a folder so far, but {images} is none: check --images")
        tasks = _tasks(samples, images, _work_folder(out, images, packing), options)
        _run([task for task in tasks if not task.folder.exists()], workers)
        shards = [finished_shard(task.split, task.folder) for task in tasks]
        publish(out, out / UNFINISHED, shards, class_ids(samples), packing)
    return True


def _tasks(samples: pd.DataFrame, images: Path, work: Path, options: PackOptions) -> list[ShardTask]:
    tasks = []
    for split, rows in samples.groupby("split"):
        for number, start in enumerate(range(0, len(rows), options.shard_size)):
            part = rows.iloc[start:start + options.shard_size]
            tasks.append(ShardTask(split, number, part["id"].tolist(), part["label"].tolist(), images, work,
                                   options.short_side, options.quality))
    return tasks


def _run(tasks: list[ShardTask], workers: int) -> None:
    """Run the tasks; at the first that the system refuses (a full disk) begin no more, and raise its OSError."""
    failures: list[OSError] = []
    jobs = (delayed(_attempt)(task) for task in takewhile(lambda _: not failures, tasks))
    todo = sum(len(task.ids) for task in tasks)
    with progress(total=todo, unit="photo", what="pack", disable=not tasks) as bar:
        for done in Parallel(n_jobs=workers, return_as="generator_unordered")(jobs):
            if isinstance(done, OSError):
                failures.append(done)
            else:
                bar.update(done)
    if failures:
        raise failures[0]


def _attempt(task: ShardTask) -> int | OSError:
    """Photos of the finished shard. An OSError is returned: raised, joblib would kill its workers, noisily."""
    try:
        return pack_shard(task)
    except OSError as error:
        return error


def _work_folder(out: Path, images: Path, packing: dict[str, Any]) -> Path:
    """The work folder of this very job, without what killed tasks left half done."""
    work, plan = out / UNFINISHED, packing | {"images": str(images.resolve())}
    if (work / PLAN).exists():
        _refuse_changes(out, json.loads((work / PLAN).read_text()), plan)
    else:
        others = [path.name for path in out.iterdir() if path != work]
        if others:
            raise UserError(f"--out must be a new folder or one that this command began, but {out} holds "
                            f"{min(others)}: choose another")
        work.mkdir(exist_ok=True)
        write_text(work / PLAN, json.dumps(plan))
    for scratch in work.glob(f"{SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)
    return work


def _refuse_changes(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changes = [f"{name} was {before.get(name)}, is {value}" for name, value in now.items()
               if before.get(name) != value]
    if changes:
        raise UserError(f"{out} was packed with other options ({'; '.join(changes)}): repeat those, "
                        "or choose another --out")


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold the folder `out` (made if missing) alone; the kernel frees it however the process ends."""
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"only one process may pack into a folder, but another one packs into {out}: "
                            "wait for it, or choose another --out") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def _disk_full_is_a_sentence(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"the disk that holds {out} is full: make space and run the same command again, "
                        "it goes on where it stopped") from None
