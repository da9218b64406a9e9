"""Make a dataset of finished shards: name them, write the files that bind them, dataset.json last.

Everything is first complete in the work folder, then renamed. A kill in between loses nothing: the same call
goes on, since what it writes depends only on the finished shards, and what was moved stays moved.
"""
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcshard.console import UserError
from arcshard.files import whole_file, write_text
from preprocess.shard_task import IDX, LABELS, PART, ROWS, TAR, file_entry
from shards.format import (CLASSES, CLASSES_COLUMNS, FORMAT_VERSION, INDEX_DTYPE, MANIFEST, NO_LANDMARK,
                           REJECTED, REJECTED_COLUMNS, index_name, labels_name, shard_name)


class NothingPacked(UserError):
    """Not one photo could be packed."""


class Shard(NamedTuple):
    """A finished shard: its split, its folder in the work folder, what its part.json says."""

    split: str
    folder: Path
    part: dict[str, Any]


def finished_shard(split: str, folder: Path) -> Shard:
    """The shard that a finished task left in `folder`."""
    return Shard(split, folder, json.loads((folder / PART).read_text()))


def publish(out: Path, work: Path, shards: list[Shard], landmark_ids: list[str],
            packing: dict[str, Any]) -> None:
    """Turn finished shards (ordered within their split) into the dataset `out`, then remove `work`.

    landmark_ids: position = label. packing: the options, for dataset.json. Raises NothingPacked, after
    removing `work`, if no photo was packed.
    """
    filled = _filled(shards)
    if not filled:
        shutil.rmtree(work)  # the rejects too may have another cause the next time
        _refuse(shards)
    tables = work / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir()
    _write_tables(tables, filled, shards, landmark_ids)
    manifest = _manifest(tables, filled, len(landmark_ids), packing)
    for name, path in _moves(tables, filled).items():
        if path.exists():  # else an interrupted call moved it
            os.replace(path, out / name)
    write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    shutil.rmtree(work)


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


def _write_tables(tables: Path, filled: dict[str, list[Shard]], shards: list[Shard],
                  landmark_ids: list[str]) -> None:
    for split, of_split in filled.items():
        _write_array(tables / index_name(split), of_split, INDEX_DTYPE, _rows)
        _write_array(tables / labels_name(split), of_split, np.dtype("<i4"), _labels)
    images = _class_sizes(filled.get("train", []), len(landmark_ids))
    classes = ((label, landmark, images[label], "") for label, landmark in enumerate(landmark_ids))
    _write_csv(tables / CLASSES, CLASSES_COLUMNS, classes)
    rejected = [(key, s.split, reason) for s in shards for key, reason in s.part["rejected"].items()]
    _write_csv(tables / REJECTED, REJECTED_COLUMNS, sorted(rejected))


def _write_array(path: Path, shards: list[Shard], dtype: np.dtype,
                 read: Callable[[int, Shard], np.ndarray]) -> None:
    """One .npy of all shards' parts, a part at a time: memory does not grow with the number of photos."""
    samples = sum(shard.part["samples"] for shard in shards)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (samples,)}
    with whole_file(path) as f:
        np.lib.format.write_array_header_1_0(f, header)
        for number, shard in enumerate(shards):
            f.write(read(number, shard).astype(dtype).tobytes())


def _rows(number: int, shard: Shard) -> np.ndarray:
    rows = np.load(shard.folder / ROWS)
    rows["shard"] = number
    return rows


def _labels(number: int, shard: Shard) -> np.ndarray:
    return np.load(shard.folder / LABELS)


def _class_sizes(shards: list[Shard], num_classes: int) -> np.ndarray:
    """Packed photos of each class, int64 (num_classes,)."""
    sizes = np.zeros(num_classes, np.int64)
    for number, shard in enumerate(shards):
        labels = _labels(number, shard)
        sizes += np.bincount(labels[labels != NO_LANDMARK], minlength=num_classes)
    return sizes


def _write_csv(path: Path, columns: list[str], rows: Iterable[tuple]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_text(path, text.getvalue())


def _manifest(tables: Path, filled: dict[str, list[Shard]], num_classes: int,
              packing: dict[str, Any]) -> dict[str, Any]:
    files = {path.name: file_entry(path) for path in tables.iterdir()}
    for split, of_split in filled.items():
        for number, shard in enumerate(of_split):
            name = shard_name(split, number)
            files |= {f"{name}.tar": shard.part["tar"], f"{name}.idx": shard.part["idx"]}
    splits = {split: {"samples": sum(shard.part["samples"] for shard in of_split), "shards": len(of_split)}
              for split, of_split in filled.items()}
    return {"format_version": FORMAT_VERSION, "num_classes": num_classes, "splits": splits,
            "packing": packing, "files": dict(sorted(files.items()))}


def _moves(tables: Path, filled: dict[str, list[Shard]]) -> dict[str, Path]:
    """Name in the dataset -> where the file lies now."""
    moves = {path.name: path for path in tables.iterdir()}
    for split, of_split in filled.items():
        for number, shard in enumerate(of_split):
            name = shard_name(split, number)
            moves |= {f"{name}.tar": shard.folder / TAR, f"{name}.idx": shard.folder / IDX}
    return moves
