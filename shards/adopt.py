"""Make a dataset of existing WebDataset tars without packing them again.

Every member is read and every photo decoded once, since a photo that breaks the format would break the DALI pipeline
during training. The tars are hard-linked under their new names (copied only to another disk) and never changed.
"""
import os
import shutil
from pathlib import Path

import numpy as np

from arcshard.console import UserError
from arcshard.csv_table import write_table
from arcshard.files import folder_lock, report_full_disk, sync_folder, whole_file
from shards.content import CLS, CLS_TEXT, NO_LABEL, ShardContent
from shards.entry import file_entry
from shards.format import CLASSES, CLASSES_COLUMNS, REJECTED, REJECTED_COLUMNS, shard_name
from shards.manifest import write_manifest
from shards.outside_labels import Names, OutsideLabels, read_classes
from shards.rebuild import RebuiltSplit, rebuild_split, unknown_packing
from shards.tables import Tables, labels_of, read_tables, repeated_keys

MAX_CLASSES = 10_000_000  # labels beyond are no numbers of classes: a head of 512 float32 each takes 20 GB
MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
CHUNK = 2**22  # bytes copied at once
REPACK = "unpack the tars and pack the photos with preprocess/make_shards.py"
LABEL_FROM = "give the labels by --label-from json:FIELD or a CSV"
REMEDIES = {NO_LABEL: LABEL_FROM, "not a label": f"if these are names of classes, add --label-from {CLS_TEXT}",
            ".json": "check --label-from", "no landmark in": "check --label-from"}
"""By words of a fault; REPACK for all others."""

Tars = dict[str, list[Path]]
"""By split, in the order of its shards."""


def adopt(tars: Tars, out: Path, classes: Path | None = None, workers: int = 1, label_from: str | None = None) -> None:
    """Make the dataset `out` of `tars`, each of them a shard.

    classes: CSV with columns label, landmark_id and, if there, name; None: a label's number is its landmark id.
    label_from: "json:FIELD", the landmark id in each sample's .json, "cls:text", the one in its .cls, or a CSV with
    columns key, landmark_id; None: .cls has the labels' numbers.
    Raises UserError, and leaves nothing, for a tar that holds what the format forbids and for a full disk. A killed
    call leaves a folder .OUT.adopting beside OUT, which the next one removes.
    """
    out, tars = out.absolute(), {split: paths for split, paths in sorted(tars.items()) if paths}
    _refuse_paths(tars, out)
    names = read_classes(classes) if classes else None
    labels = OutsideLabels(label_from) if label_from else None
    work = out.with_name(f".{out.name}.adopting")
    work.mkdir(parents=True, exist_ok=True)
    with report_full_disk(out), folder_lock(work):
        _empty(work)
        try:
            _make(work, tars, names, labels, workers)
        except BaseException:
            shutil.rmtree(work)
            raise
        os.rename(work, out)
    sync_folder(out.parent)


def _make(work: Path, tars: Tars, names: Names | None, labels: OutsideLabels | None, workers: int) -> None:
    splits = [_read_split(work, split, paths, labels, workers) for split, paths in tars.items()]
    _refuse_faults(splits, tars)
    files = {name: entry for split in splits for name, entry in split.entries.items()}
    if labels:
        names, of_labels = labels.write(work, names)
        files |= of_labels
    tables = [read_tables(work, split.split, split.shards) for split in splits]
    _refuse_repeated_keys(tables, tars)
    if names is None:
        names = [(str(label), "") for label in range(_highest_label(tables, tars, MAX_CLASSES) + 1)]
    _highest_label(tables, tars, len(names))
    in_train = labels_of(tables, "train")
    assert in_train is not None
    images = np.bincount(in_train[in_train >= 0], minlength=len(names)).tolist()
    write_table(work / CLASSES, CLASSES_COLUMNS,
                ((label, landmark, images[label], name) for label, (landmark, name) in enumerate(names)))
    write_table(work / REJECTED, REJECTED_COLUMNS, [])
    files |= {name: file_entry(work / name) for name in (CLASSES, REJECTED)}
    for split, paths in tars.items():
        for number, path in enumerate(paths):
            _bring(path, work / f"{shard_name(split, number)}.tar")
    counts = {split.split: split.counts for split in splits}
    packing = unknown_packing("adopted", tables) | ({"label_from": labels.source} if labels else {})
    write_manifest(work, len(names), counts, packing, files)


def _read_split(work: Path, split: str, tars: list[Path], labels: OutsideLabels | None, workers: int) -> RebuiltSplit:
    def judge(number: int, content: ShardContent) -> list[str]:
        return labels.judge(split, content) if labels else content.faults

    return rebuild_split(split, tars, work, judge, label_from=labels.source if labels else CLS, decode=True,
                         workers=workers, what=f"adopt {split}")


def _bring(tar: Path, name: Path) -> None:
    try:
        os.link(tar.resolve(), name)
    except OSError:  # another disk, a file system without links, another owner's file
        with open(tar, "rb") as source, whole_file(name) as copy:
            shutil.copyfileobj(source, copy, CHUNK)


def _empty(folder: Path) -> None:
    """Remove what a killed call left."""
    for path in folder.iterdir():
        path.unlink()


def _refuse_paths(tars: Tars, out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists already: choose a new folder")
    for tar in [tar for paths in tars.values() for tar in paths]:
        if not tar.is_file():
            raise UserError(f"there is no file {tar}: check the path")
        with open(tar, "rb") as f:
            start = f.read(6)
        if kind := next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None):
            raise UserError(f"{tar} is compressed with {kind}, so its samples cannot be read at random: decompress it "
                            "to a plain .tar first")


def _refuse_faults(splits: list[RebuiltSplit], tars: Tars) -> None:
    faults = [(tars[split.split][number], of_tar) for split in splits for number, of_tar in split.faults.items()]
    if faults:
        tar, of_first = faults[0]
        remedy = next((remedy for words, remedy in REMEDIES.items() if words in of_first[0]), REPACK)
        raise UserError(f"{tar} is not a valid shard: {of_first[0]} ({sum(len(of_tar) for _, of_tar in faults):,} "
                        f"faults in {len(faults):,} tars): {remedy}")


def _refuse_repeated_keys(tables: list[Tables], tars: Tars) -> None:
    places: dict[bytes, Path] = {}
    for key, table, row in repeated_keys(tables):
        tar = _tar_of(tars, table, row)
        if key in places:
            raise UserError(f"{places[key]} and {tar} both hold a sample with the key {key.decode()}: if they are of "
                            "two runs of img2dataset, which number their photos alike, adopt each run on its own and "
                            f"train on both with select.mix; otherwise {REPACK}")
        places[key] = tar


def _highest_label(tables: list[Tables], tars: Tars, num_classes: int) -> int:
    """The highest label of all splits. Raises UserError for one beyond `num_classes`."""
    highest = -1
    for table in tables:
        assert table.labels is not None
        row = int(table.labels.argmax())
        highest = max(highest, int(table.labels[row]))
        if highest >= num_classes:
            raise UserError(f"{table.key(row).decode()}.cls in {_tar_of(tars, table, row)} is {highest}, not below "
                            f"{num_classes:,}, the number of classes: name all classes with --classes")
    return highest


def _tar_of(tars: Tars, table: Tables, row: int) -> Path:
    assert table.bounds is not None
    return tars[table.split][int(np.searchsorted(table.bounds, row, side="right")) - 1]
