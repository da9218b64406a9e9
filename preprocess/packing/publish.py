"""Turn kept shards into a dataset: write its tables, give every file its final name, dataset.json last.

    prepare   writes the tables and publish.json, the list of renames, into the work folder
    finish    renames, writes dataset.json, deletes the work folder

A kill during prepare leaves the output as it was; after it, any call of finish() completes the work.
"""
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcshard.console import UserError
from arcshard.csv_table import write_table
from arcshard.untrusted import parse_json
from preprocess.packing.existing import ExistingDataset
from preprocess.packing.output import IDX, LABELS, PART, ROWS, TAR, Output, read_object, work_of
from shards.entry import file_entry
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    INDEX_DTYPE,
    LABEL_DTYPE,
    MANIFEST,
    NO_LANDMARK,
    REJECTED,
    REJECTED_COLUMNS,
    TRUTHS_COLUMNS,
    UNFINISHED,
    index_name,
    labels_name,
    shard_name,
    truths_name,
)
from shards.manifest import manifest_text
from shards.rows import new_rows, stream_rows

PUBLISH = f"{UNFINISHED}/publish.json"
TABLES = f"{UNFINISHED}/tables"
PART_KINDS = {"samples": int, "rejected": dict, "tar": dict, "idx": dict}


class PackedShard(NamedTuple):
    """A kept shard: its split, the name it was kept under, the contents of its part.json."""

    split: str
    name: str
    part: dict[str, Any]


class TableContents(NamedTuple):
    """What the sample table says about a dataset, besides where its photos are."""

    landmark_ids: list[str]
    """Position = label; those of an existing dataset come first."""
    names: Mapping[str, str]
    """Names of landmarks, by id."""
    truths: dict[str, dict[str, str]]
    """By split: photo id -> all its labels as text, for photos that have several."""
    retried: set[str]
    """Ids of photos rejected by an earlier call that this one tried again."""


HINT = " (archives are named themselves, not their folder) and the photos' names (<id>.jpg, or as in the column path)"


class NothingPacked(UserError):
    """Not one photo could be packed."""


def kept_shard(output: Output, split: str, name: str) -> PackedShard:
    """The shard that a finished task kept under `name`."""
    part = read_object(output, f"{UNFINISHED}/{name}/{PART}", PART_KINDS)
    return PackedShard(split, name, part)


def prepare(output: Output, shards: list[PackedShard], contents: TableContents, existing: ExistingDataset,
            packing: dict[str, Any]) -> None:
    """Write all that finish() needs. `shards` are in order within their split.

    existing: the dataset they are added to. packing: the options, for dataset.json. Raises NothingPacked, after
    removing the work folder, if no photo was packed.
    """
    filled = _filled(shards)
    if not filled:
        output.remove_work()  # the next call must try the rejected photos again
        _refuse(shards)
    tables = output.local_work() / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir()
    write_tables(tables, filled, shards, contents, existing)
    moves = {path.name: f"{TABLES}/{path.name}" for path in sorted(tables.iterdir())}
    text = _manifest(tables, filled, len(contents.landmark_ids), existing, packing)
    for name, source in moves.items():
        output.put(tables / name, source)
    for name, shard in _numbered(filled, existing):
        moves |= {f"{name}.tar": f"{UNFINISHED}/{shard.name}/{TAR}",
                  f"{name}.idx": f"{UNFINISHED}/{shard.name}/{IDX}"}
    output.write(PUBLISH, json.dumps({"moves": moves, "manifest": text}).encode())


def finish(output: Output) -> None:
    """Carry out what prepare() wrote down; do nothing if it did not run or was finished already."""
    if "publish.json" not in output.names(UNFINISHED):
        return
    plan = read_object(output, PUBLISH, {"moves": dict, "manifest": str})
    with work_of(output, PUBLISH):
        _check_plan(**plan)
    output.remove(MANIFEST)  # without it, a dataset between its old and its new state is not taken for one
    for name, source in plan["moves"].items():
        output.move(source, name)
    output.write(MANIFEST, plan["manifest"].encode())
    output.remove_work()


def _check_plan(moves: dict[str, str], manifest: str) -> None:
    """Raise ValueError for moves that leave the output's folder."""
    parse_json(manifest)
    for name, source in moves.items():
        folder, *rest = str(source).split("/")
        if "/" in name or name.startswith(".") or folder != UNFINISHED or ".." in rest:
            raise ValueError(f"moves {source!r} to {name!r}")


def _filled(shards: list[PackedShard]) -> dict[str, list[PackedShard]]:
    """Shards that hold a sample, by split; an empty tar would stop DALI's reader."""
    filled: dict[str, list[PackedShard]] = {}
    for shard in shards:
        if shard.part["samples"]:
            filled.setdefault(shard.split, []).append(shard)
    return dict(sorted(filled.items()))


def _refuse(shards: list[PackedShard]) -> None:
    reasons = {key: reason for shard in shards for key, reason in shard.part["rejected"].items()}
    key, reason = next(iter(reasons.items()))
    raise NothingPacked(f"no photo could be packed: all {len(reasons):,} were rejected (the first, {key}: {reason}); "
                        f"check --images{HINT if {*reasons.values()} == {'file not found'} else ''}")


def _numbered(filled: dict[str, list[PackedShard]], existing: ExistingDataset) -> list[tuple[str, PackedShard]]:
    """The name in the dataset of each shard that holds a sample."""
    return [(shard_name(split, number), shard) for split, of_split in filled.items()
            for number, shard in enumerate(of_split, start=existing.count(split, "shards"))]


def _manifest(tables: Path, filled: dict[str, list[PackedShard]], num_classes: int, existing: ExistingDataset,
              packing: dict[str, Any]) -> str:
    """The text of the new dataset.json."""
    files, splits = existing.files(), existing.splits()
    files |= {path.name: file_entry(path) for path in tables.iterdir()}
    for name, shard in _numbered(filled, existing):
        files |= {f"{name}.tar": shard.part["tar"], f"{name}.idx": shard.part["idx"]}
        counts = splits.setdefault(shard.split, {"samples": 0, "shards": 0})
        counts["samples"] += shard.part["samples"]
        counts["shards"] += 1
    return manifest_text(num_classes, splits, packing, files)


# A dataset's tables: index, labels, truths, classes, rejects. Arrays are written one shard at a time, after those of
# the existing dataset, so that memory does not grow with the number of photos.

def write_tables(folder: Path, filled: dict[str, list[PackedShard]], shards: list[PackedShard], contents: TableContents,
                 existing: ExistingDataset) -> None:
    """Write the existing dataset's tables, with the kept `shards` added, into `folder`.

    filled: the shards that hold a sample, by split.
    """
    for split, of_split in filled.items():
        _write_array(folder, index_name(split), INDEX_DTYPE, of_split, existing, _rows)
        _write_array(folder, labels_name(split), LABEL_DTYPE, of_split, existing, _labels)
    write_table(folder / CLASSES, CLASSES_COLUMNS, _classes(filled.get("train", []), contents, existing))
    rejected = {key: (split, reason) for key, split, reason in existing.rejected() if key not in contents.retried}
    rejected |= {key: (s.split, reason) for s in shards for key, reason in s.part["rejected"].items()}
    write_table(folder / REJECTED, REJECTED_COLUMNS, sorted((key, *why) for key, why in rejected.items()))
    for split in filled:
        truths = existing.truths(split) | contents.truths.get(split, {})
        if packed := sorted((key, labels) for key, labels in truths.items() if key not in rejected):
            write_table(folder / truths_name(split), TRUTHS_COLUMNS, packed)


def _write_array(folder: Path, name: str, dtype: np.dtype, shards: list[PackedShard], existing: ExistingDataset,
                 read: Callable[[Output, int, PackedShard], np.ndarray]) -> None:
    with new_rows(folder / name, dtype) as append:
        for rows in existing.rows(name, dtype):
            append(rows)
        for number, shard in enumerate(shards, start=existing.count(shards[0].split, "shards")):
            append(read(existing.output, number, shard))


def _rows(output: Output, number: int, shard: PackedShard) -> np.ndarray:
    rows = _load(output, shard, ROWS, INDEX_DTYPE)
    rows["shard"] = number
    return rows


def _labels(output: Output, number: int, shard: PackedShard) -> np.ndarray:
    return _load(output, shard, LABELS, LABEL_DTYPE)


def _load(output: Output, shard: PackedShard, name: str, dtype: np.dtype) -> np.ndarray:
    path = f"{UNFINISHED}/{shard.name}/{name}"
    with output.open(path) as f, work_of(output, path):
        return np.concatenate([np.empty(0, dtype), *stream_rows(f, dtype)])


def _classes(train: list[PackedShard], contents: TableContents,
             existing: ExistingDataset) -> list[tuple[int, str, int, str]]:
    """Rows of classes.csv; images counts the packed photos of split train."""
    num_classes = len(contents.landmark_ids)
    images = np.zeros(num_classes, np.int64)
    names = [contents.names.get(landmark, "") for landmark in contents.landmark_ids]
    for label, (_, count, name) in enumerate(existing.classes()):
        images[label], names[label] = count, name or names[label]
    for shard in train:
        labels = _labels(existing.output, 0, shard)
        images += np.bincount(labels[labels != NO_LANDMARK], minlength=num_classes)
    return list(zip(range(num_classes), contents.landmark_ids, images.tolist(), names))
