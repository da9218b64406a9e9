"""Pack a sample table and its photos into a dataset: the library behind make_shards.py.

    shuffle -> cut into shards -> one task per shard -> publish

Finished shards wait in OUT/.packing, so that the same call after a kill does only what is missing and ends with the
same bytes.
"""
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import pandas as pd

from arcshard.console import UserError, progress, size_text
from arcshard.files import DISK_FULL, report_full_disk
from preprocess.engine import Engine, run_tasks
from preprocess.packing.estimate import estimate
from preprocess.packing.existing import ExistingDataset, refuse_without_dataset, rows_to_add, with_addition
from preprocess.packing.options import PackOptions, refuse_changes
from preprocess.packing.output import SCRATCH, Output, open_output, read_object
from preprocess.packing.publish import PackedShard, TableContents, finish, kept_shard, prepare
from preprocess.packing.shard_task import ShardRange, ShardTask, pack_shard, shard_ranges
from preprocess.samples.classes import names_digest
from preprocess.samples.sample_table import check_samples, class_ids, digest, shuffled
from preprocess.sources import PhotoSource, open_source
from shards.format import UNFINISHED, shard_name

PLAN = f"{UNFINISHED}/plan.json"
DISK_CHECK_PHOTOS = 64  # from which it is estimated beforehand whether the disk has room for all
ATTEMPTS = f"{UNFINISHED}/attempts"
MAX_ATTEMPTS = 3  # dask gives a task up at its fourth death, with an error that names no shard


class PackingJob(NamedTuple):
    """What a call must do: the rows in packing order, cut into shards, and what the dataset says about them."""

    samples: pd.DataFrame
    shards: list[ShardRange]
    landmark_ids: list[str]
    names: Mapping[str, str]
    packing: dict[str, Any]


def pack(samples: pd.DataFrame, images: Sequence[str | Path], out: str | Path, options: PackOptions, engine: Engine,
         append: bool = False, names: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Pack the photos of `samples` (see sample_table.py) into the dataset `out`, a folder or an fsspec URL.

    images: see sources.open_source. Equal samples, photos and options give equal bytes, whatever the engine and
    however often the call was killed and repeated. append: add those rows to the finished dataset `out` that it
    lacks. names: names of landmarks, by id; names that `out` has stay. Returns False if there was nothing to do.
    Raises UserError if `out` holds anything else, if another process packs into it, if the disk is or will be full, or
    for samples that the format cannot hold.
    """
    check_samples(samples)
    output = open_output(out)
    with report_full_disk(output.url), output.lock():
        finish(output)
        existing = ExistingDataset(output)
        if append:
            refuse_without_dataset(existing)
        job = _job(samples, options, existing, append, names)
        if job is None:
            output.remove_work()  # a kill between the last two steps leaves it
            return False
        del samples  # if the caller does not keep it either: 70 MB for 1.2 M photos
        cache = _work_folder(output, existing) / "sources"
        source = open_source([str(where) for where in images], cache, engine.workers)
        source.refuse_ambiguous(job.samples["id"], job.samples.get("path"))
        plan = job.packing | {"images": source.urls}
        _refuse_other_plan(output, plan)
        _refuse_small_disk(output, job, source, options)
        output.write(PLAN, json.dumps(plan).encode())
        shards = _run(job, source, options, output, engine)
        prepare(output, shards, _contents(job, existing), existing, job.packing)
        finish(output)
    return True


def _job(samples: pd.DataFrame, options: PackOptions, existing: ExistingDataset, append: bool,
         names: Mapping[str, str]) -> PackingJob | None:
    """None: the existing dataset is what this call would make."""
    of_samples, packing = digest(samples), options.record()
    if existing.manifest is None or not append:
        packing |= {"samples_sha256": of_samples, "names_sha256": names_digest(names)}
        rows, landmark_ids = samples, class_ids(samples)
    if existing.manifest is not None:
        packed = existing.manifest["packing"]
        refuse_changes(existing.output.url, packed, packing)
        if not append or of_samples in [packed["samples_sha256"], *packed.get("appended_sha256", [])]:
            return None
        rows, landmark_ids = rows_to_add(samples, existing)
        if rows.empty:
            return None
        packing = with_addition(packed, of_samples)
    rows = shuffled(rows, options.seed)
    first_numbers = {split: existing.count(split, "shards") for split in existing.splits()}
    shards = shard_ranges(rows["split"], options.shard_size, first_numbers)
    return PackingJob(rows, shards, landmark_ids, names, packing)


def _work_folder(output: Output, existing: ExistingDataset) -> Path:
    """The local work folder, without what killed tasks left half done; refuses a folder of other files."""
    others = output.names() - {UNFINISHED}
    if existing.manifest is None and others:
        raise UserError(f"{output.url} holds other files ({min(others)}): choose for --out a new folder, or one "
                        "that this command began")
    work = output.local_work()
    for scratch in work.glob(f"{SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)
    return work


def _refuse_other_plan(output: Output, plan: dict[str, Any]) -> None:
    """Refuse to continue what another plan began."""
    if PLAN.rpartition("/")[2] in output.names(UNFINISHED):
        refuse_changes(output.url, read_object(output, PLAN), plan)


def _refuse_small_disk(output: Output, job: PackingJob, source: PhotoSource, options: PackOptions) -> None:
    free, kept = output.free_bytes(), output.kept()
    photos = sum(shard.stop - shard.start for shard in job.shards if shard.name not in kept)
    if free is None or not photos:
        return
    needed = estimate(job.samples, source, options, DISK_CHECK_PHOTOS).size(photos)
    if needed > free:
        raise UserError(f"the disk of {output.url} is too small: it has {size_text(free)} left, and the dataset needs "
                        f"about {size_text(needed)} more (estimated from some of its photos); make space, choose "
                        "another --out, or a smaller --short-side")


def _run(job: PackingJob, source: PhotoSource, options: PackOptions, output: Output,
         engine: Engine) -> list[PackedShard]:
    """Pack the shards that are missing."""
    output.remove_tree(ATTEMPTS)

    def unfinished() -> Iterator[ShardTask]:
        kept = output.kept()
        for shard in job.shards:
            if shard.name not in kept:
                yield _task(shard, job.samples, source, options, output)

    kept = output.kept()
    done = sum(shard.stop - shard.start for shard in job.shards if shard.name in kept)
    todo = len(job.samples) - done
    with progress(total=len(job.samples), initial=done, unit="photo", what="pack", disable=not todo) as bar:
        try:
            for photos in run_tasks(engine, _attempt, unfinished):
                bar.update(photos)
        except Exception as failure:
            _raise(failure, output)
    return [kept_shard(output, shard.split, shard.name) for shard in job.shards]


def _raise(failure: Exception, output: Output) -> NoReturn:
    """A fault of the disk or the network becomes one sentence; a bug keeps its traceback."""
    full = isinstance(failure, OSError) and failure.errno in DISK_FULL
    if isinstance(failure, UserError) or full or not isinstance(failure, OSError) and not _is_remote(output):
        raise failure
    raise UserError(f"packing into {output.url} stopped at an error of the system ({failure}): repair it and run the "
                    "same command again, which continues where it stopped") from failure


def _is_remote(output: Output) -> bool:
    return output.free_bytes() is None


def _task(shard: ShardRange, samples: pd.DataFrame, source: PhotoSource, options: PackOptions,
          output: Output) -> ShardTask:
    rows = samples.iloc[shard.start:shard.stop]
    ids = rows["id"].tolist()
    locations = source.locate(ids, rows["path"].tolist() if "path" in rows else None)
    return ShardTask(shard.split, shard.number, ids, rows["label"].tolist(), locations, options, output)


def _attempt(task: ShardTask) -> int:
    """Number of photos in the finished shard."""
    name = shard_name(task.split, task.number)
    if not note_attempt(task.output, name):
        raise UserError(f"workers died {MAX_ATTEMPTS} times on {name}, out of memory or at a photo: give --workers 1, "
                        "or more memory, and run it again")
    return pack_shard(task)


def note_attempt(output: Output, name: str) -> bool:
    """Note that task `name` begins; False if it began MAX_ATTEMPTS times and never ended, killed by a photo perhaps."""
    attempts = len(output.names(f"{ATTEMPTS}/{name}"))
    if attempts < MAX_ATTEMPTS:
        output.write(f"{ATTEMPTS}/{name}/{uuid.uuid4().hex}", b"-")
    return attempts < MAX_ATTEMPTS


def _contents(job: PackingJob, existing: ExistingDataset) -> TableContents:
    truths: dict[str, dict[str, str]] = {}
    if "truths" in job.samples:
        several = job.samples[job.samples["truths"] != ""]
        for split, rows in several.groupby("split"):
            truths[str(split)] = dict(zip(rows["id"], rows["truths"]))
    rejected = {key for key, _, _ in existing.rejected()}
    return TableContents(job.landmark_ids, job.names, truths, set(job.samples["id"]) & rejected if rejected else set())
