"""Make a dataset of existing WebDataset tars without packing them again.

Every member is read and every photo decoded once, since a photo that breaks the format would break the DALI pipeline
during training. The tars are hard-linked under their new names (copied only to another disk) and never changed.
"""
import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcshard.console import UserError
from arcshard.files import folder_lock, report_full_disk, sync_folder, whole_file, write_text
from shards.content import ShardContent
from shards.format import CLASSES, CLASSES_COLUMNS, REJECTED, REJECTED_COLUMNS, shard_name
from shards.manifest import FileEntry, file_entry, write_manifest
from shards.repair import found_packing, read_shards, write_index
from shards.tables import Tables, labels_of, read_tables, repeated_keys, write_table

# The classes of adopted tars: from a CSV file, or the labels' own numbers.

MAX_CLASSES = 10_000_000  # labels beyond are no numbers of classes: a head of 512 float32 each takes 20 GB
NEEDED = {"label", "landmark_id"}


def own_numbers(num_classes: int) -> list[tuple[str, str]]:
    """landmark_id and name of each label where nobody has named them."""
    return [(str(label), "") for label in range(num_classes)]


def read_classes(path: Path) -> list[tuple[str, str]]:
    """landmark_id and name of each label, from a CSV file with columns label, landmark_id and, if there, name.

    Raises UserError unless its labels are 0 … C-1 and its landmark ids differ.
    """
    rows = sorted(_rows(path))
    labels, ids = [row[0] for row in rows], [row[1] for row in rows]
    if labels != [*range(len(rows))]:
        wrong = next(number for number, label in enumerate(labels) if label != number)
        raise UserError(f"the labels of --classes must be 0, 1, 2, …, each once, but row {wrong + 1} of {path} in the "
                        f"order of its labels has {labels[wrong]}: number the classes so")
    if len({*ids}) < len(ids):
        raise UserError(f"a landmark_id must have one label, but {path} has one in several rows: keep one of them")
    return [(landmark, name) for _, landmark, name in rows]


def class_rows(names: list[tuple[str, str]], train_labels: np.ndarray) -> Iterator[tuple[int, str, int, str]]:
    """Rows of classes.csv."""
    images = np.bincount(train_labels[train_labels >= 0], minlength=len(names)).tolist()
    return ((label, landmark, images[label], name) for label, (landmark, name) in enumerate(names))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """label, landmark_id, name."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            table = csv.DictReader(f)
            if missing := NEEDED - {*(table.fieldnames or [])}:
                raise UserError(f"{path} must have the columns label and landmark_id, but lacks "
                                f"{', '.join(sorted(missing))}: check the path")
            for row in table:
                if not row["landmark_id"]:
                    raise ValueError(f"label {row['label']} has no landmark_id")
                yield int(row["label"] or ""), row["landmark_id"], row.get("name") or ""
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: check --classes") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} must be a CSV file in UTF-8 whose labels are numbers, but is not ({error}): "
                        "mend it") from None


MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
CHUNK = 2**22  # bytes copied at once
REPACK = "unpack the tars and pack the photos with preprocess/make_shards.py"

Tars = dict[str, list[Path]]
"""By split, in the order of its shards."""
Refused = tuple[Path, str, int]
"""A tar, the first of its faults, and how many it has."""


def adopt(tars: Tars, out: Path, classes: Path | None = None, workers: int = 1) -> None:
    """Make the dataset `out` of `tars`, each of them a shard.

    classes: CSV with columns label, landmark_id and, if there, name; None: a label's number is its landmark id.
    Raises UserError, and leaves nothing, for a tar that holds what the format forbids and for a full disk. A killed
    call leaves a folder .OUT.adopting beside OUT, which the next one removes.
    """
    out, tars = out.absolute(), {split: paths for split, paths in sorted(tars.items()) if paths}
    _refuse_paths(tars, out)
    names = read_classes(classes) if classes else None
    work = out.with_name(f".{out.name}.adopting")
    work.mkdir(parents=True, exist_ok=True)
    with report_full_disk(out), folder_lock(work):
        _empty(work)
        try:
            _make(work, tars, names, workers)
        except BaseException:
            shutil.rmtree(work)
            raise
        os.rename(work, out)
    sync_folder(out.parent)


def _make(work: Path, tars: Tars, names: list[tuple[str, str]] | None, workers: int) -> None:
    files: dict[str, FileEntry] = {}
    faults: list[Refused] = []
    splits = {split: write_index(work, split, _contents(work, split, paths, files, faults, workers))
              for split, paths in tars.items()}
    _refuse_faults(faults)
    tables = [read_tables(work, split, counts["shards"]) for split, counts in splits.items()]
    _refuse_repeated_keys(tables, tars)
    names = own_numbers(_highest_label(tables, tars, MAX_CLASSES) + 1) if names is None else names
    _highest_label(tables, tars, len(names))
    labels = labels_of(tables, "train")
    assert labels is not None
    write_table(work / CLASSES, CLASSES_COLUMNS, class_rows(names, labels))
    write_table(work / REJECTED, REJECTED_COLUMNS, [])
    files |= {path.name: file_entry(path) for path in work.iterdir() if path.name not in files}
    for split, paths in tars.items():
        for number, path in enumerate(paths):
            _bring(path, work / f"{shard_name(split, number)}.tar")
    packing = found_packing("adopted", [table.index for table in tables if table.index])
    write_manifest(work, len(names), splits, packing, files)


def _contents(work: Path, split: str, paths: list[Path], files: dict[str, FileEntry],
              faults: list[Refused], workers: int) -> Iterator[ShardContent]:
    """What the tars hold, while each one's .idx is written and its entry and faults are noted."""
    shards = read_shards(paths, f"adopt {split}", workers, decode=True)
    for number, (content, path) in enumerate(zip(shards, paths)):
        if content.faults:
            faults.append((path, content.faults[0], len(content.faults)))
        name = shard_name(split, number)
        write_text(work / f"{name}.idx", content.idx.decode())
        files[f"{name}.tar"] = content.entry
        yield content


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


def _refuse_faults(faults: list[Refused]) -> None:
    if faults:
        tar, first, _ = faults[0]
        raise UserError(f"{tar} is not a valid shard: {first} ({sum(count for *_, count in faults):,} faults in "
                        f"{len(faults):,} tars): {REPACK}")


def _refuse_repeated_keys(tables: list[Tables], tars: Tars) -> None:
    places: dict[bytes, Path] = {}
    for key, table, row in repeated_keys(tables):
        tar = _tar_of(tars, table, row)
        if key in places:
            raise UserError(f"{places[key]} and {tar} both hold a sample with the key {key.decode()}: {REPACK}")
        places[key] = tar


def _highest_label(tables: list[Tables], tars: Tars, num_classes: int) -> int:
    """The highest label of all splits. Raises UserError for one beyond `num_classes`."""
    highest = -1
    for table in tables:
        assert table.index is not None and table.labels is not None
        row = int(table.labels.argmax())
        highest = max(highest, int(table.labels[row]))
        if highest >= num_classes:
            key = table.index.read(row, 1)["key"][0].decode()
            raise UserError(f"labels must be below {num_classes:,}, the number of classes, but {key}.cls in "
                            f"{_tar_of(tars, table, row)} is {highest}: name all classes with --classes")
    return highest


def _tar_of(tars: Tars, table: Tables, row: int) -> Path:
    assert table.bounds is not None
    return tars[table.split][int(np.searchsorted(table.bounds, row, side="right")) - 1]
