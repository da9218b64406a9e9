"""verify names each fault, also one that came with a fitting dataset.json; info says what is there."""
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from arcshard.files import sha256, write_text
from preprocess.packing import PackOptions, pack
from shards.info import info
from shards.verify import verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """20 photos in two train shards and one test shard."""
    folder = tmp_path_factory.mktemp("verify")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(20):
        size = (24, 32 + number, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"k{number}.jpg")
        rows.append((f"k{number}", f"{number % 4}", number % 4, "train" if number < 14 else "test"))
    samples = pd.DataFrame(rows, columns=["id", "landmark_id", "label", "split"])
    pack(samples, folder, folder / "out", PackOptions(shard_size=7), workers=1)
    return folder / "out"


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


def seal(path: Path) -> None:
    """Make dataset.json agree with the files as they are, so that only their contents can betray a fault."""
    manifest = json.loads((path / "dataset.json").read_text())
    manifest["files"] = {entry.name: {"size": entry.stat().st_size, "sha256": sha256(entry)}
                         for entry in path.iterdir() if entry.name != "dataset.json"}
    (path / "dataset.json").write_text(json.dumps(manifest))


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Apply `change` (in place, or returning another array) to an .npy file."""
    array = np.load(path)
    changed = change(array)
    np.save(path, array if changed is None else changed)


def edit_row(field: str, delta: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        def change(rows: np.ndarray) -> None:
            rows[field][3] += delta
        edit(path / "train.index.npy", change)
    return damage


def rename_key(path: Path) -> None:
    def change(rows: np.ndarray) -> None:
        rows["key"][3] = b"other"
    edit(path / "train.index.npy", change)


def edit_label(path: Path) -> None:
    def change(labels: np.ndarray) -> None:
        labels[3] = (labels[3] + 1) % 4
    edit(path / "train.labels.npy", change)


def rows_of(path: Path) -> np.ndarray:
    return np.load(path / "train.index.npy")


def stale_idx(path: Path) -> None:
    shutil.copy(path / "train-000000.idx", path / "train-000001.idx")


def swapped_shards(path: Path) -> None:
    for extension in ("tar", "idx"):
        first, second = path / f"train-000000.{extension}", path / f"train-000001.{extension}"
        first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
        first.write_bytes(second_bytes)
        second.write_bytes(first_bytes)


def drop_class(path: Path) -> None:
    lines = (path / "classes.csv").read_text().splitlines(keepends=True)
    (path / "classes.csv").write_text("".join(lines[:-1]))


def append(path: Path) -> None:
    with open(path / "train-000000.tar", "ab") as f:
        f.write(b"x" * 10240)


# name: (damage, what the sealed dataset's faults must say; None: only sizes and sha256 can tell)
DAMAGES: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "flipped bit in a photo": (
        lambda path: flip(path / "train-000000.tar", int(rows_of(path)["offset"][3]) + 200),
        "train-000000.tar: sample {key} at offset {offset}: the photo's bytes do not have the crc32"),
    "flipped bit in a header": (
        lambda path: flip(path / "train-000000.tar", int(rows_of(path)["offset"][3]) - 400),
        "train-000000.tar: sample {key} at offset {offset}: the tar header of {key}.jpg is damaged"),
    "flipped bit in a label": (
        lambda path: flip(path / "train-000000.tar", int(rows_of(path)["offset"][4]) - 1024),
        "train-000000.tar: sample {key} at offset {offset}: the tar says label "),
    "truncated tar": (
        lambda path: os.truncate(path / "train-000000.tar", int(rows_of(path)["offset"][3]) + 200),
        "train-000000.tar: sample {key} at offset {offset}: the tar ends within the photo"),
    "cut end": (lambda path: os.truncate(path / "train-000000.tar", 512 * 47),
                "train-000000.tar: truncated: 24064"),
    "empty tar": (lambda path: os.truncate(path / "train-000000.tar", 0), "train-000000.tar: empty"),
    "more at the end": (append, "train-000000.tar: holds more behind its last sample, from offset "),
    "stale idx": (stale_idx, "train-000001.idx: stale, it is not the index of this tar"),
    "swapped shards": (swapped_shards, "train-000000.tar: sample "),
    "edited offset": (edit_row("offset", 512),
                      "sample {key} at offset {offset}: the index row's offset should be"),
    "edited size": (edit_row("size", 1),
                    "sample {key} at offset {offset}: the tar header says '{key}.jpg' of "),
    "edited crc32": (edit_row("crc32", 1),
                     "sample {key} at offset {offset}: the photo's bytes do not have the crc32"),
    "edited width": (edit_row("width", 1), "sample {key} at offset {offset}: the index row says "),
    "edited shard": (edit_row("shard", 1), "train.index.npy: its shards are not 0 to 1 in order"),
    "edited key": (rename_key, "sample other at offset {offset}: the tar header says "),
    "edited label": (edit_label, "sample {key} at offset {offset}: the tar says label "),
    "label out of range": (lambda path: edit(path / "train.labels.npy", lambda labels: labels + 4),
                           "train.labels.npy: 14 labels are not -1 to 3"),
    "too few labels": (lambda path: edit(path / "train.labels.npy", lambda labels: labels[:-1]),
                       "train.labels.npy: has 13 rows, dataset.json counts 14 samples"),
    "too few rows": (lambda path: edit(path / "train.index.npy", lambda rows: rows[:-1]),
                     "train.index.npy: has 13 rows, dataset.json counts 14 samples"),
    "other dtype": (lambda path: edit(path / "train.labels.npy", lambda labels: labels.astype(np.int64)),
                    "train.labels.npy: must be a row of int32, not int64 of shape (14,)"),
    "no array": (lambda path: write_text(path / "train.index.npy", "rows"),
                 "train.index.npy: cannot be read ("),
    "too few classes": (drop_class, "classes.csv: has 3 classes, dataset.json counts 4"),
    "edited rejects": (lambda path: write_text(path / "rejected.csv", "x"), None),
}


def test_a_packed_dataset_is_whole(whole):
    assert verify(whole) == []


@pytest.mark.parametrize("damage, sentence", DAMAGES.values(), ids=DAMAGES)
def test_each_damage_is_found(copy, damage, sentence):
    """By its sha256 or size against dataset.json, and when that was made to fit, by its contents."""
    damage(copy)
    changed = [fault for fault in verify(copy)
               if "sha256 is not the one it was packed with" in fault or "was packed with" in fault]
    assert changed
    seal(copy)
    faults = verify(copy)
    if sentence is None:
        assert faults == []
    else:
        if "{" in sentence:
            row = rows_of(copy)[3]
            sentence = sentence.format(key=row["key"].decode(), offset=row["offset"])
        assert any(sentence in fault for fault in faults), faults


@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.idx", "train.index.npy",
                                  "train.labels.npy", "classes.csv", "rejected.csv"])
def test_missing_files_are_named(copy, name):
    (copy / name).unlink()
    assert verify(copy) == [f"{name}: missing"]


def test_extra_files_are_named(copy):
    (copy / "train-000002.tar").write_bytes(b"")
    (copy / ".packing").mkdir()
    assert verify(copy) == [".packing: an extra file that dataset.json does not list",
                            "train-000002.tar: an extra file that dataset.json does not list"]


def test_wrong_count_of_shards(copy):
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["splits"]["train"]["shards"] = 3
    (copy / "dataset.json").write_text(json.dumps(manifest))
    assert "train.index.npy: its shards are not 0 to 2 in order" in verify(copy)


def command(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "shards", *args], capture_output=True, text=True)


def test_commands_and_their_exit_codes(copy, tmp_path):
    done = command("verify", str(copy))
    assert (done.returncode, done.stdout) == (0, f"{copy} is whole: every byte is as it was packed\n")
    done = command("info", str(copy))
    assert (done.returncode, done.stdout) == (0, info(copy) + "\n")
    (copy / "train-000001.tar").unlink()
    done = command("verify", str(copy))
    assert (done.returncode, done.stdout) == (1, "train-000001.tar: missing\n")
    done = command("verify", str(tmp_path / "no"))
    assert done.returncode == 2
    assert done.stderr == (
        "shards: a dataset is a folder that preprocess/make_shards.py made, but there is no folder "
        f"{tmp_path}/no: check the path\n")
    assert command("verify").returncode == command("mend", str(copy)).returncode == 2


def test_info_says_what_the_dataset_is(whole):
    text = info(whole)
    assert text.startswith("format version 1, 4 classes, 12 files, ")
    assert "short_side None, quality 90, shard_size 7, seed 0" in text
    assert "train: 14 samples in 2 shards" in text and "test: 6 samples in 1 shards" in text
    assert "width      32 / 38 / 45 (least / median / most) pixels" in text
    assert "4 occur, photos a class 3 / 4 / 4 (least / median / most)" in text


@pytest.mark.parametrize("name", ["train.index.npy", "train.labels.npy", "classes.csv"])
def test_any_flipped_byte_at_the_start_of_a_table_is_a_named_fault(whole, name):
    """numpy's header parser answers damage with many exceptions; verify answers with a fault."""
    path = whole / name
    sound = path.read_bytes()
    try:
        for offset in range(0, min(128, len(sound)), 3):
            for value in (0x00, 0x28, 0xFF):
                path.write_bytes(sound[:offset] + bytes([value ^ (sound[offset] == value)]) + sound[offset + 1:])
                assert any(fault.startswith(name) for fault in verify(whole)), (offset, value)
    finally:
        path.write_bytes(sound)


def test_a_manifest_without_its_keys_is_one_sentence(copy):
    (copy / "dataset.json").write_text('{"format_version": 1, "splits": {}}')
    done = command("verify", str(copy))
    assert done.returncode == 2 and "but lacks files, num_classes, packing" in done.stderr
