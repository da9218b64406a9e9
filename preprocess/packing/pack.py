"""Pack a sample table and its photos into a dataset: the library behind make_shards.py.

    shuffle -> cut into shards -> one task a shard -> publish

Tasks keep finished shards in OUT/.packing, so that the same call after a kill does only what is missing and ends
with the same bytes.
"""
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd

from arcshard.console import UserError, progress, size_text
from arcshard.full_disk import DISK_FULL, full_disk_is_a_sentence
from preprocess.engine import Engine, run_tasks
from preprocess.packing.estimate import rehearse
from preprocess.packing.existing import Before, added_rows, refuse_without_dataset, with_addition
from preprocess.packing.options import PackOptions, refuse_changes
from preprocess.packing.output import SCRATCH, Output, open_output
from preprocess.packing.publish import Contents, finish, kept_shard, prepare
from preprocess.packing.shard_task import Cut, ShardTask, cuts, pack_shard
from preprocess.samples.classes import names_digest
from preprocess.samples.sample_table import check_samples, class_ids, digest, shuffled
from preprocess.sources import PhotoSource, open_source
from shards.format import UNFINISHED, shard_name

# Count the beginnings of a task, so that a photo that kills its worker ends in a sentence, not in a circle.

ATTEMPTS = f"{UNFINISHED}/attempts"
MAX_ATTEMPTS = 3  # dask gives a task up at its fourth death, with an error that names no shard


def begin(output: Output, name: str) -> bool:
    """Note that task `name` begins; False if it began MAX_ATTEMPTS times before and never ended."""
    before = len(output.names(f"{ATTEMPTS}/{name}"))
    if before < MAX_ATTEMPTS:
        output.write(f"{ATTEMPTS}/{name}/{uuid.uuid4().hex}", b"-")
    return before < MAX_ATTEMPTS


PLAN = f"{UNFINISHED}/plan.json"
REHEARSED = 64  # photos that tell beforehand whether the disk has room for all


class Job(NamedTuple):
    """What a call must do: the rows in packing order, cut into shards, and what the dataset says of them."""

    samples: pd.DataFrame
    cuts: list[Cut]
    landmark_ids: list[str]
    names: Mapping[str, str]
    packing: dict[str, Any]


def pack(samples: pd.DataFrame, images: Sequence[str | Path], out: str | Path, options: PackOptions, engine: Engine,
         append: bool = False, names: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Pack the photos of `samples` (see sample_table.py) into the dataset `out`, a folder or an fsspec URL.

    images: see sources.open_source. Equal samples, photos and options give equal bytes, whatever the engine and
    however often the call was killed and repeated. append: add to the finished dataset `out` those rows that it
    does not hold. names: of landmarks, by id; those that `out` has stay. Returns False if there was nothing to do.
    Raises UserError if `out` holds anything else, if another process packs into it, if the disk is or will be full, or
    for samples that the format cannot hold.
    """
    check_samples(samples)
    output = open_output(out)
    with full_disk_is_a_sentence(output.url), output.lock():
        finish(output)
        before = Before(output)
        if append:
            refuse_without_dataset(before)
        job = _job(samples, options, before, append, names)
        if job is None:
            output.remove_work()  # a kill between the last two steps leaves it
            return False
        source = open_source([str(where) for where in images], _work_folder(output, before) / "sources", engine.workers)
        _hold_to_plan(output, job.packing | {"images": source.urls})
        _refuse_small_disk(output, job, source, options)
        shards = _run(job, source, options, output, engine)
        prepare(output, shards, _contents(job, before), before, job.packing)
        finish(output)
    return True


def _job(samples: pd.DataFrame, options: PackOptions, before: Before, append: bool,
         names: Mapping[str, str]) -> Job | None:
    """None: `before` is what this call would make."""
    of_samples, packing = digest(samples), options.record()
    if before.manifest is None or not append:
        packing |= {"samples_sha256": of_samples, "names_sha256": names_digest(names)}
        rows, landmark_ids = samples, class_ids(samples)
    if before.manifest is not None:
        packed = before.manifest["packing"]
        refuse_changes(before.output.url, packed, packing)
        if not append or of_samples in [packed["samples_sha256"], *packed.get("appended_sha256", [])]:
            return None
        rows, landmark_ids = added_rows(samples, before)
        if rows.empty:
            return None
        packing = with_addition(packed, of_samples)
    rows = shuffled(rows, options.seed)
    first_numbers = {split: before.count(split, "shards") for split in before.splits()}
    return Job(rows, cuts(rows["split"], options.shard_size, first_numbers), landmark_ids, names, packing)


def _work_folder(output: Output, before: Before) -> Path:
    """The local work folder, without what killed tasks left half done; refuses an output that is not ours."""
    others = output.names() - {UNFINISHED}
    if before.manifest is None and others:
        raise UserError(f"--out must be a new folder or one that this command began, but {output.url} holds "
                        f"{min(others)}: choose another")
    work = output.local_work()
    for scratch in work.glob(f"{SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)
    return work


def _hold_to_plan(output: Output, plan: dict[str, Any]) -> None:
    """Refuse to go on with another plan than the one that began; note this one if none did."""
    if PLAN.rpartition("/")[2] in output.names(UNFINISHED):
        with output.open(PLAN) as f:
            refuse_changes(output.url, json.loads(f.read()), plan)
    output.write(PLAN, json.dumps(plan).encode())


def _refuse_small_disk(output: Output, job: Job, source: PhotoSource, options: PackOptions) -> None:
    free, kept = output.free_bytes(), output.kept()
    photos = sum(cut.stop - cut.start for cut in job.cuts if cut.name not in kept)
    if free is None or not photos:
        return
    needed = rehearse(job.samples, source, options, REHEARSED).size(photos)
    if needed > free:
        raise UserError(f"the dataset needs about {size_text(needed)} more (guessed from some of its photos), but the "
                        f"disk of {output.url} has {size_text(free)} left: make space, choose another --out, or a "
                        "smaller --short-side")


def _run(job: Job, source: PhotoSource, options: PackOptions, output: Output, engine: Engine) -> list[Any]:
    """Do what is missing; at the first task that the system refuses (a full disk) begin no more, and say so."""
    failures: list[Exception] = []
    output.remove_tree(ATTEMPTS)

    def unfinished() -> Iterator[ShardTask]:
        kept = output.kept()
        for cut in job.cuts:
            if cut.name not in kept and not failures:
                yield _task(cut, job.samples, source, options, output)

    kept = output.kept()
    done = sum(cut.stop - cut.start for cut in job.cuts if cut.name in kept)
    todo = len(job.samples) - done
    with progress(total=len(job.samples), initial=done, unit="photo", what="pack", disable=not todo) as bar:
        for result in run_tasks(engine, _attempt, unfinished):
            if isinstance(result, Exception):
                failures.append(result)
            else:
                bar.update(result)
    if failures:
        _raise(failures[0], output)
    return [kept_shard(output, cut.split, cut.name) for cut in job.cuts]


def _raise(failure: Exception, output: Output) -> None:
    """What is wrong with the disk or the network is a sentence; what is wrong with us is not."""
    full = isinstance(failure, OSError) and failure.errno in DISK_FULL
    if isinstance(failure, UserError) or full or not isinstance(failure, OSError) and not _is_remote(output):
        raise failure
    raise UserError(f"the packing into {output.url} stopped at an error of the system ({failure}): mend it and run the "
                    "same command again, it goes on where it stopped") from failure


def _is_remote(output: Output) -> bool:
    return output.free_bytes() is None


def _task(cut: Cut, samples: pd.DataFrame, source: PhotoSource, options: PackOptions, output: Output) -> ShardTask:
    rows = samples.iloc[cut.start:cut.stop]
    ids = rows["id"].tolist()
    locations = source.locate(ids, rows["path"].tolist() if "path" in rows else None)
    return ShardTask(cut.split, cut.number, ids, rows["label"].tolist(), locations, options, output)


def _attempt(task: ShardTask) -> int | Exception:
    """Photos of the finished shard. An exception is returned: raised, joblib would kill its workers, noisily."""
    try:
        if not begin(task.output, shard_name(task.split, task.number)):
            return UserError(f"workers died {MAX_ATTEMPTS} times on {shard_name(task.split, task.number)}, out of "
                             "memory or at a photo: give --workers 1, or more memory, and run it again")
        return pack_shard(task)
    except Exception as error:
        return error


def _contents(job: Job, before: Before) -> Contents:
    truths: dict[str, dict[str, str]] = {}
    if "truths" in job.samples:
        several = job.samples[job.samples["truths"] != ""]
        for split, rows in several.groupby("split"):
            truths[str(split)] = dict(zip(rows["id"], rows["truths"]))
    rejected = {key for key, _, _ in before.rejected()}
    return Contents(job.landmark_ids, job.names, truths, set(job.samples["id"]) & rejected if rejected else set())
