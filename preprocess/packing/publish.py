"""Make a dataset of kept shards: write the files that bind them, name everything, dataset.json last.

    prepare   tables and the new dataset.json are complete in the work folder, publish.json lists the renames
    finish    the renames, then dataset.json, then the work folder goes

A kill during prepare leaves what was there before; after it, finish() ends the work, whoever calls it.
"""
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcshard.console import UserError
from arcshard.files import whole_file
from preprocess.packing.existing import Before
from preprocess.packing.output import IDX, LABELS, PART, ROWS, TAR, Output
from shards.format import (
    CLASSES,
    CLASSES_COLUMNS,
    INDEX_DTYPE,
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
from shards.manifest import file_entry, manifest_text
from shards.tables import write_table

PUBLISH = f"{UNFINISHED}/publish.json"
TABLES = f"{UNFINISHED}/tables"


class Shard(NamedTuple):
    """A kept shard: its split, the name it was kept under, what its part.json says."""

    split: str
    name: str
    part: dict[str, Any]


class Contents(NamedTuple):
    """What the sample table says of a dataset, beside where its photos are."""

    landmark_ids: list[str]
    """Position = label; those of the dataset that is added to come first."""
    names: Mapping[str, str]
    """Of landmarks, by id."""
    truths: dict[str, dict[str, str]]
    """By split: photo id -> all its labels as text, for photos that have more than one."""
    retried: set[str]
    """Photos rejected before that this call tried again."""


class NothingPacked(UserError):
    """Not one photo could be packed."""


def kept_shard(output: Output, split: str, name: str) -> Shard:
    """The shard that a finished task kept under `name`."""
    with output.open(f"{UNFINISHED}/{name}/{PART}") as f:
        return Shard(split, name, json.loads(f.read()))


def prepare(output: Output, shards: list[Shard], contents: Contents, before: Before, packing: dict[str, Any]) -> None:
    """Write all that finish() needs. `shards` are in order within their split.

    before: what they are added to. packing: the options, for dataset.json. Raises NothingPacked, after removing
    the work folder, if no photo was packed.
    """
    filled = _filled(shards)
    if not filled:
        output.remove_work()  # the rejects too may have another cause the next time
        _refuse(shards)
    tables = output.local_work() / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir()
    write_tables(tables, filled, shards, contents, before)
    moves = {path.name: f"{TABLES}/{path.name}" for path in sorted(tables.iterdir())}
    text = _manifest(tables, filled, len(contents.landmark_ids), before, packing)
    for name, source in moves.items():
        output.put(tables / name, source)
    for name, shard in _numbered(filled, before):
        moves |= {f"{name}.tar": f"{UNFINISHED}/{shard.name}/{TAR}",
                  f"{name}.idx": f"{UNFINISHED}/{shard.name}/{IDX}"}
    output.write(PUBLISH, json.dumps({"moves": moves, "manifest": text}).encode())


def finish(output: Output) -> None:
    """Do what prepare() wrote down, if it did and nobody has finished it."""
    if "publish.json" not in output.names(UNFINISHED):
        return
    with output.open(PUBLISH) as f:
        plan = json.loads(f.read())
    output.remove(MANIFEST)  # of the dataset that is added to: between two states it is none
    for name, source in plan["moves"].items():
        output.move(source, name)
    output.write(MANIFEST, plan["manifest"].encode())
    output.remove_work()


def _filled(shards: list[Shard]) -> dict[str, list[Shard]]:
    """Shards that hold a sample, by split; an empty tar would stop DALI's reader."""
    filled: dict[str, list[Shard]] = {}
    for shard in shards:
        if shard.part["samples"]:
            filled.setdefault(shard.split, []).append(shard)
    return dict(sorted(filled.items()))


def _refuse(shards: list[Shard]) -> None:
    key, reason = next((key, reason) for shard in shards for key, reason in shard.part["rejected"].items())
    count = sum(len(shard.part["rejected"]) for shard in shards)
    raise NothingPacked(f"a dataset needs at least one photo, but all {count:,} were rejected (the first, {key}: "
                        f"{reason}): check --images")


def _numbered(filled: dict[str, list[Shard]], before: Before) -> list[tuple[str, Shard]]:
    """The name in the dataset of each shard that holds a sample."""
    return [(shard_name(split, number), shard) for split, of_split in filled.items()
            for number, shard in enumerate(of_split, start=before.count(split, "shards"))]


def _manifest(tables: Path, filled: dict[str, list[Shard]], num_classes: int, before: Before,
              packing: dict[str, Any]) -> str:
    """The text of the new dataset.json."""
    files, splits = before.files(), before.splits()
    files |= {path.name: file_entry(path) for path in tables.iterdir()}
    for name, shard in _numbered(filled, before):
        files |= {f"{name}.tar": shard.part["tar"], f"{name}.idx": shard.part["idx"]}
        counts = splits.setdefault(shard.split, {"samples": 0, "shards": 0})
        counts["samples"] += shard.part["samples"]
        counts["shards"] += 1
    return manifest_text(num_classes, splits, packing, files)


# The files that bind a dataset's shards: index, labels, truths, classes, rejects. Arrays are written a shard at a time,
# after what was there before: memory does not grow with the photos.

def write_tables(folder: Path, filled: dict[str, list[Shard]], shards: list[Shard], contents: Contents,
                 before: Before) -> None:
    """Write the tables of `before` with the kept `shards` added into `folder`.

    filled: the shards that hold a sample, by split.
    """
    for split, of_split in filled.items():
        _write_array(folder, index_name(split), INDEX_DTYPE, of_split, before, _rows)
        _write_array(folder, labels_name(split), np.dtype("<i4"), of_split, before, _labels)
    write_table(folder / CLASSES, CLASSES_COLUMNS, _classes(filled.get("train", []), contents, before))
    rejected = {key: (split, reason) for key, split, reason in before.rejected() if key not in contents.retried}
    rejected |= {key: (s.split, reason) for s in shards for key, reason in s.part["rejected"].items()}
    write_table(folder / REJECTED, REJECTED_COLUMNS, sorted((key, *why) for key, why in rejected.items()))
    for split in filled:
        truths = dict(before.rows(truths_name(split))) | contents.truths.get(split, {})
        if packed := sorted((key, labels) for key, labels in truths.items() if key not in rejected):
            write_table(folder / truths_name(split), TRUTHS_COLUMNS, packed)


def _write_array(folder: Path, name: str, dtype: np.dtype, shards: list[Shard], before: Before,
                 read: Callable[[Output, int, Shard], np.ndarray]) -> None:
    split = shards[0].split
    samples = before.count(split, "samples") + sum(shard.part["samples"] for shard in shards)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (samples,)}
    with whole_file(folder / name) as f:
        np.lib.format.write_array_header_1_0(f, header)
        before.copy_array(name, f)
        for number, shard in enumerate(shards, start=before.count(split, "shards")):
            f.write(read(before.output, number, shard).astype(dtype).tobytes())


def _rows(output: Output, number: int, shard: Shard) -> np.ndarray:
    rows = _load(output, shard, ROWS)
    rows["shard"] = number
    return rows


def _labels(output: Output, number: int, shard: Shard) -> np.ndarray:
    return _load(output, shard, LABELS)


def _load(output: Output, shard: Shard, name: str) -> np.ndarray:
    with output.open(f"{UNFINISHED}/{shard.name}/{name}") as f:
        return np.load(io.BytesIO(f.read()))


def _classes(train: list[Shard], contents: Contents, before: Before) -> list[tuple[int, str, int, str]]:
    """Rows of classes.csv; images counts the packed photos of split train."""
    num_classes = len(contents.landmark_ids)
    images = np.zeros(num_classes, np.int64)
    names = [contents.names.get(landmark, "") for landmark in contents.landmark_ids]
    for label, (_, count, name) in enumerate(before.classes()):
        images[label], names[label] = count, name or names[label]
    for shard in train:
        labels = _labels(before.output, 0, shard)
        images += np.bincount(labels[labels != NO_LANDMARK], minlength=num_classes)
    return list(zip(range(num_classes), contents.landmark_ids, images.tolist(), names))
