"""verify names each fault, even if dataset.json agrees with it; repair rebuilds what the tars determine."""
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from arcshard.console import UserError
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from shards import Dataset
from shards.entry import file_entry
from shards.format import KEY_PATTERN, idx_text
from shards.manifest import read_manifest, write_manifest
from shards.repair import repair
from shards.tables import hash_keys, repeated
from shards.verify import verify
from shards.writer import Sample, write_tar
from tests.commands import run_here


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """20 photos of 4 classes in two train shards and one test shard; sample k15 shows two landmarks."""
    folder = tmp_path_factory.mktemp("verify")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(20):
        size = (24, 32 + number, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"k{number}.jpg")
        rows.append((f"k{number}", f"{number % 4}", number % 4, "train" if number < 14 else "test"))
    samples = pd.DataFrame(rows, columns=["id", "landmark_id", "label", "split"])
    pack(samples, [folder], folder / "out", PackOptions(shard_size=7), Engine())
    (folder / "out" / "test.truths.csv").write_text("id,labels\nk15,3 1\n")
    seal(folder / "out")
    return folder / "out"


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def seal(path: Path) -> None:
    """Make dataset.json agree with the files as they are, so that only their contents can betray a fault."""
    manifest = read_manifest(path)
    files = {entry.name: file_entry(entry) for entry in path.iterdir() if entry.name != "dataset.json"}
    write_manifest(path, manifest["num_classes"], manifest["splits"], manifest["packing"], files)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def flip_in_tar(before_photo: int, row: int = 3) -> Callable[[Path], None]:
    return lambda path: flip(path / "train-000000.tar", int(rows_of(path)["offset"][row]) - before_photo)


def edit(name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[Path], None]:
    """Apply `change` (in place, or returning another array) to an .npy file."""
    def damage(path: Path) -> None:
        array = np.load(path / name)
        changed = change(array)
        np.save(path / name, array if changed is None else changed)
    return damage


def edit_row(field: str, delta: int) -> Callable[[Path], None]:
    def change(rows: np.ndarray) -> None:
        rows[field][3] += delta
    return edit("train.index.npy", change)


def rename_key(rows: np.ndarray) -> None:
    rows["key"][3] = b"other"


def spoil_key(rows: np.ndarray) -> None:
    rows["key"][3] = b"a\n\xff"


def repeat_key(rows: np.ndarray) -> None:
    rows["key"][3] = rows["key"][9]


def edit_label(labels: np.ndarray) -> None:
    labels[3] = (labels[3] + 1) % 4


def rows_of(path: Path) -> np.ndarray:
    return np.load(path / "train.index.npy")


def edit_text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new))
    return damage


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda path: (path / name).write_bytes(data)


def cut(size: int | None) -> Callable[[Path], None]:
    """Truncate a tar, by default within the photo of row 3."""
    return lambda path: os.truncate(path / "train-000000.tar",
                                    int(rows_of(path)["offset"][3]) + 200 if size is None else size)


def swap_shards(path: Path) -> None:
    for extension in ("tar", "idx"):
        first, second = path / f"train-000000.{extension}", path / f"train-000001.{extension}"
        first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
        first.write_bytes(second_bytes)
        second.write_bytes(first_bytes)


def append(data: bytes, name: str = "train-000000.tar") -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with open(path / name, "ab") as f:
            f.write(data)
    return damage


def spoil_label(path: Path) -> None:
    with open(path / "train-000000.tar", "r+b") as f:
        f.seek(int(rows_of(path)["offset"][4]) - 1024)
        f.write(b"s")


class Damage(NamedTuple):
    """What is done to a dataset, and what verify then says of it ({key}, {offset}: of row 3)."""

    do: Callable[[Path], object]
    sentence: str
    sealed: str | None = ""
    """With a fitting dataset.json; "": the same; None: nothing can tell."""
    fixed: bool = True
    """Whether repair gives the old bytes back."""


SAMPLE, ROW = "train-000000.tar: sample {key} at offset {offset}", "train.index.npy: row 3, sample {key} at offset "
DAMAGES = {
    "flipped bit in a photo": Damage(
        flip_in_tar(-200), SAMPLE + ": the photo's bytes are not those that were packed",
        ROW + "{offset}: crc32 is ", fixed=False),
    "flipped bit in a photo's header": Damage(
        flip_in_tar(400), "train-000000.tar: at offset {header}: a damaged tar header (bad checksum)", fixed=False),
    "flipped bit in a label's header": Damage(
        flip_in_tar(1024 + 400, 4), SAMPLE + " is no longer there", fixed=False),
    "flipped bit in a label": Damage(
        flip_in_tar(1024, 4), SAMPLE + ": label is ", "train.labels.npy: row 3, sample {key} at offset ", fixed=False),
    "a letter for a label": Damage(
        spoil_label, "train-000000.tar: at offset {cls}: member {key}.cls is 's', not a label",
        fixed=False),
    "flipped bit behind a label": Damage(
        flip_in_tar(1000, 4), "train-000000.tar: its sha256 is not the one it was packed with", None, fixed=False),
    "truncated tar": Damage(
        cut(None), "train-000000.tar: at offset {end}: truncated: a tar ends with two blocks of zeros", fixed=False),
    "tar without its padding": Damage(
        cut(512 * 47), "train-000000.tar: has 24064 bytes, was packed with 30720", None, fixed=False),
    "tar without its second block of zeros": Damage(
        cut(512 * 43), "train-000000.tar: at offset 21504: truncated: ", fixed=False),
    "empty tar": Damage(cut(0), "train-000000.tar: at offset 0: truncated: ", fixed=False),
    "tar of zeros": Damage(write("train-000000.tar", bytes(10240)), "train-000000.tar: holds no sample", fixed=False),
    "more at the end": Damage(
        append(b"x" * 10240), "train-000000.tar: at offset 21504: data behind the block of zeros", fixed=False),
    "zeros at the end": Damage(
        append(bytes(512)), "train-000000.tar: has 31232 bytes, was packed with 30720", None, fixed=False),
    "swapped shards": Damage(
        swap_shards, "train-000001.tar: sample ", "train.index.npy: row 0, sample ", fixed=False),
    "stale idx": Damage(
        lambda path: shutil.copy(path / "train-000000.idx", path / "train-000001.idx"),
        "train-000001.idx: stale, it is not the index of train-000001.tar"),
    "empty idx": Damage(write("train-000001.idx", b""), "train-000001.idx: stale, "),
    "edited offset": Damage(edit_row("offset", 512), ROW + "{other_offset}: offset is "),
    "edited size": Damage(edit_row("size", 1), ROW + "{offset}: size is "),
    "edited crc32": Damage(edit_row("crc32", 1), ROW + "{offset}: crc32 is "),
    "edited width": Damage(edit_row("width", 1), ROW + "{offset}: width is "),
    "edited height": Damage(edit_row("height", 1), ROW + "{offset}: height is 25, but train-000000.tar has 24"),
    "edited key": Damage(edit("train.index.npy", rename_key),
                         "train.index.npy: row 3, sample other at offset {offset}: key is other, but "
                         "train-000000.tar has {key}"),
    "unprintable key": Damage(edit("train.index.npy", spoil_key),
                              "train.index.npy: row 3, sample a\\n\\xff at offset {offset}: key is a\\n\\xff, but "),
    "edited shard": Damage(edit_row("shard", 1), "train.index.npy: its shards are not 0 to 1 in order"),
    "negative shard": Damage(edit_row("shard", -1), "train.index.npy: its shards are not 0 to 1 in order"),
    "key twice in the index": Damage(edit("train.index.npy", repeat_key),
                                     "train.index.npy: row 9 has the key {ninth}, which row 3 of train.index.npy has"),
    "edited label": Damage(edit("train.labels.npy", edit_label), "train.labels.npy: row 3, sample {key} at offset "),
    "label out of range": Damage(edit("train.labels.npy", lambda labels: labels + 4),
                                 "train.labels.npy: 14 labels are outside -1 to 3"),
    "too few labels": Damage(edit("train.labels.npy", lambda labels: labels[:-1]),
                             "train.labels.npy: has 13 rows, dataset.json counts 14 samples"),
    "too few rows": Damage(edit("train.index.npy", lambda rows: rows[:-1]),
                           "train.index.npy: has 13 rows, dataset.json counts 14 samples"),
    "rows in another order": Damage(edit("train.index.npy", lambda rows: rows[[1, 0, *range(2, 14)]]),
                                    "train.index.npy: row 0, sample "),
    "no rows": Damage(edit("train.index.npy", lambda rows: rows[:0]),
                      "train.index.npy: has 0 rows, dataset.json counts 14 samples"),
    "other dtype": Damage(edit("train.labels.npy", lambda labels: labels.astype(np.int64)),
                          "train.labels.npy: holds int64 of shape (14,), not a row of int32"),
    "no array": Damage(write("train.index.npy", b"rows and more rows"), "train.index.npy: cannot be read ("),
    "more than the array": Damage(
        append(b"x", "train.labels.npy"), "train.labels.npy: has 185 bytes, its 14 rows end at 184"),
    "too few classes": Damage(edit_text("classes.csv", "3,3,3,\n", ""),
                              "classes.csv: has 3 classes, dataset.json counts 4", fixed=False),
    "classes in another order": Damage(edit_text("classes.csv", "1,1,4,\n2,2,3,", "2,2,3,\n1,1,4,"),
                                       "classes.csv: has label '2' where 1 belongs", fixed=False),
    "landmark twice": Damage(edit_text("classes.csv", "3,3,3", "3,2,3"), "classes.csv: has a landmark_id twice",
                             fixed=False),
    "wrong count of images": Damage(edit_text("classes.csv", "1,1,4", "1,1,5"),
                                    "classes.csv: counts '5' images of class 1, split train has 4", fixed=False),
    "other columns": Damage(edit_text("classes.csv", "landmark_id", "id"),
                            "classes.csv: has the columns 'label,id,images,name', not label,landmark_id,",
                            fixed=False),
    "renamed landmark": Damage(edit_text("classes.csv", "3,3,3", "3,9,3"),
                               "classes.csv: its sha256 is not the one it was packed with", None, fixed=False),
    "unknown sample with truths": Damage(edit_text("test.truths.csv", "k15", "k2"),
                                         "test.truths.csv: the split has no sample 'k2'", fixed=False),
    "other first truth": Damage(edit_text("test.truths.csv", "3 1", "2 1"), "test.truths.csv: the first label of "
                                "sample 'k15' is 2, not its own, 3", fixed=False),
    "own label not the first truth": Damage(edit_text("test.truths.csv", "3 1", "1 3"), "test.truths.csv: the first "
                                            "label of sample 'k15' is 1, not its own, 3", fixed=False),
    "truth that is no class": Damage(edit_text("test.truths.csv", "3 1", "3 4"), "test.truths.csv: sample 'k15' has "
                                     "the labels [3, 4], not several of 0 to 3", fixed=False),
    "truth twice": Damage(edit_text("test.truths.csv", "3 1", "3 3"), "test.truths.csv: sample 'k15' has the labels "
                          "[3, 3], not several of 0 to 3", fixed=False),
    "one truth": Damage(edit_text("test.truths.csv", "3 1", "3"), "test.truths.csv: sample 'k15' has '3', not several ",
                        fixed=False),
    "sample with truths twice": Damage(edit_text("test.truths.csv", "k15,3 1", "k15,3 1\nk15,3 1"),
                                       "test.truths.csv: has sample 'k15' twice", fixed=False),
    "too few fields": Damage(edit_text("test.truths.csv", "k15,3 1", "k15"), "test.truths.csv: a row has 1 fields, "
                             "not 2", fixed=False),
    "edited rejects": Damage(write("rejected.csv", b"x"), "rejected.csv: has 1 bytes, was packed with 16", None,
                             fixed=False),
}


def test_a_packed_dataset_is_whole_and_needs_no_repair(whole, copy):
    assert verify(whole) == []
    assert repair(copy) == ([], [])
    assert contents(copy) == contents(whole)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_each_damage_is_found(copy, damage):
    """By its sha256 or size against dataset.json, and when that was made to fit, by its contents."""
    rows = rows_of(copy)
    row = rows[3]
    offset = int(row["offset"])
    known = {"key": row["key"].decode(), "offset": offset, "header": offset - 512, "other_offset": offset + 512,
             "end": offset + 200, "cls": int(rows["offset"][4]) - 1536, "ninth": rows["key"][9].decode()}
    damage.do(copy)
    assert any(fault.startswith(damage.sentence.format(**known)) for fault in verify(copy)), verify(copy)
    seal(copy)
    sealed = damage.sentence if damage.sealed == "" else damage.sealed
    if sealed is None:
        assert verify(copy) == []
    else:
        assert any(fault.startswith(sealed.format(**known)) for fault in verify(copy)), verify(copy)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_repair_gives_the_old_bytes_back_or_names_what_it_cannot(whole, copy, damage):
    damage.do(copy)
    damaged = contents(copy)
    rebuilt, lost = repair(copy)
    if damage.fixed:
        assert rebuilt and not lost
        assert contents(copy) == contents(whole) and verify(copy) == []
    else:
        name = damage.sentence.partition(":")[0]
        assert rebuilt == [] and contents(copy) == damaged
        assert any(sentence.startswith(f"{name}: ") for sentence in lost), lost


@pytest.mark.parametrize("name", ["train-000001.tar", "train-000001.idx", "train.index.npy", "test.truths.csv",
                                  "train.labels.npy", "classes.csv", "rejected.csv"])
def test_missing_files_are_named_and_made_anew_from_the_tars(whole, copy, name):
    (copy / name).unlink()
    assert verify(copy) == [f"{name}: missing"]
    rebuilt, lost = repair(copy)
    if name.endswith((".idx", ".npy")):
        assert (rebuilt, lost, contents(copy)) == ([name], [], contents(whole))
    else:
        assert rebuilt == [] and [sentence.partition(":")[0] for sentence in lost] == [name]


def test_extra_files_are_named_and_left_alone(copy):
    (copy / "train-000002.tar").write_bytes(b"")
    (copy / ".hidden").mkdir()
    assert verify(copy) == [".hidden: an extra file that dataset.json does not list",
                            "train-000002.tar: an extra file that dataset.json does not list"]
    assert repair(copy) == ([], [".hidden: an extra file: remove it", "train-000002.tar: an extra file: remove it"])
    assert (copy / "train-000002.tar").exists() and (copy / ".hidden").exists()


def edit_manifest(path: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((path / "dataset.json").read_text())
    change(manifest)
    (path / "dataset.json").write_text(json.dumps(manifest, indent=1) + "\n")


MANIFEST_DAMAGES = {
    "train.index.npy: its shards are not 0 to 2 in order": lambda m: m["splits"]["train"].update(shards=3),
    "dataset.json: lists no train-000002.tar, which its splits need": lambda m: m["splits"]["train"].update(shards=3),
    "dataset.json: lists no train-000009.tar, which its splits need":
        lambda m: m["splits"]["train"].update(shards=2**40),
    "dataset.json: lists train-000001.tar, which its splits do not have":
        lambda m: m["splits"]["train"].update(shards=1),
    "train.index.npy: has 14 rows, dataset.json counts 15 samples": lambda m: m["splits"]["train"].update(samples=15),
    "classes.csv: has 4 classes, dataset.json counts 5": lambda m: m.update(num_classes=5),
    "dataset.json: lists no rejected.csv, which its splits need": lambda m: m["files"].pop("rejected.csv"),
    "dataset.json: lists x, which its splits do not have":
        lambda m: m["files"].update(x={"size": 0, "sha256": "0" * 64}),
    "train-000000.idx: has 292 bytes, was packed with 1": lambda m: m["files"]["train-000000.idx"].update(size=1),
    "train.labels.npy: its sha256 is not the one it was packed with":
        lambda m: m["files"]["train.labels.npy"].update(sha256="0" * 64),
}


@pytest.mark.parametrize("sentence", MANIFEST_DAMAGES)
def test_wrong_counts_and_entries_of_the_manifest_are_named_and_repaired(whole, copy, sentence):
    edit_manifest(copy, MANIFEST_DAMAGES[sentence])
    assert sentence in verify(copy)
    assert repair(copy) == (["dataset.json"], [])
    assert contents(copy) == contents(whole)


def test_a_wrong_entry_of_a_tar_cannot_be_told_from_a_damaged_tar(copy):
    edit_manifest(copy, lambda m: m["files"]["train-000000.tar"].update(sha256="0" * 64))
    assert verify(copy) == ["train-000000.tar: its sha256 is not the one it was packed with"]
    rebuilt, lost = repair(copy)
    assert rebuilt == [] and lost == ["train-000000.tar: its sha256 is not the one it was packed with; "
                                      "a damaged tar cannot be rebuilt"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_change_of_the_manifest_is_named_but_for_the_options(whole, copy, data):
    """A byte replaced anywhere in dataset.json either means the same JSON, or is a fault or a sentence."""
    text = (whole / "dataset.json").read_bytes()
    at = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.sampled_from([b"\x00", b"1", b"9", b"a", b'"', b"}", b"-", b"\xff"]))
    changed = text[:at] + byte + text[at + 1:]
    (copy / "dataset.json").write_bytes(changed)
    try:
        faults = verify(copy)
    except UserError as error:
        assert "\n" not in str(error)
        return
    if not faults:
        found, expected = json.loads(changed), json.loads(text)
        assert found | {"packing": 0} == expected | {"packing": 0}


def remake(path: Path, split: str, number: int, change: Callable[[int, Sample], Sample]) -> None:
    """Write a shard anew with changed samples, and let idx, index, labels and dataset.json agree with it."""
    dataset = Dataset(path, split)
    own = np.flatnonzero(dataset.index["shard"] == number)
    samples = [change(i, Sample(row["key"].decode(), int(dataset.labels[own[i]]), dataset.read(own[i]),
                                int(row["width"]), int(row["height"]))) for i, row in enumerate(dataset.index[own])]
    with open(path / f"{split}-{number:06}.tar", "wb") as f:
        rows, labels = write_tar(f, samples)
    (path / f"{split}-{number:06}.idx").write_text(idx_text(rows, labels))
    rows["shard"] = number

    def replace(index: np.ndarray) -> None:
        index[own] = rows
    edit(f"{split}.index.npy", replace)(path)
    seal(path)


@pytest.mark.parametrize("split, number", [("train", 1), ("test", 0)])
def test_a_key_in_two_shards_or_two_splits_is_named(copy, split, number):
    key = rows_of(copy)["key"][2].decode()
    remake(copy, split, number, lambda i, sample: sample._replace(key=key) if i == 4 else sample)
    sentence = {"train": f"train.index.npy: row 11 has the key {key}, which row 2 of train.index.npy has too",
                "test": f"train.index.npy: row 2 has the key {key}, which row 4 of test.index.npy has too"}[split]
    faults = [fault for fault in verify(copy) if "truths" not in fault]
    assert faults == repair(copy).lost == [sentence]


def encoded(**options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((24, 40, 3), np.uint8)).save(out, "JPEG", **options)
    return out.getvalue()


def test_a_photo_that_is_not_in_the_form_is_named(copy):
    odd = {1: encoded(progressive=True), 2: encoded(subsampling="4:4:4")}
    remake(copy, "train", 0, lambda i, sample: sample._replace(data=odd.get(i, sample.data), width=40, height=24)
           if i in odd else sample)
    first, second = rows_of(copy)[[1, 2]]
    assert verify(copy) == [
        f"train-000000.tar: at offset {first['offset'] - 512}: member {first['key'].decode()}.jpg is progressive, "
        "not baseline",
        f"train-000000.tar: at offset {second['offset'] - 512}: member {second['key'].decode()}.jpg has chroma "
        "sampling 1x1 1x1 1x1, not 4:2:0"]


def test_a_damaged_header_hides_no_other_sample(copy):
    """The walk goes on at the next whole header."""
    flip_in_tar(400)(copy)
    row = rows_of(copy)[3]
    key, offset = row["key"].decode(), int(row["offset"])
    following = offset + -(-int(row["size"]) // 512) * 512
    assert verify(copy) == [f"train-000000.tar: at offset {offset - 512}: a damaged tar header (bad checksum)",
                            f"train-000000.tar: at offset {following}: member {key}.cls has no {key}.jpg beside it",
                            f"train-000000.tar: sample {key} at offset {offset} is no longer there"]


def test_verify_reads_headers_of_photos_and_does_not_decode(copy):
    """What make_shards.py --no-verify packed is whole in the bytes that were packed."""
    remake(copy, "train", 0, lambda i, sample: sample._replace(data=sample.data[:-300]) if i == 1 else sample)
    assert verify(copy) == []


@given(st.lists(st.from_regex(KEY_PATTERN, fullmatch=True), unique=True, max_size=50))
def test_other_keys_have_other_hashes(keys):
    hashes = hash_keys(np.array([key.encode() for key in keys], "S96"))
    assert len({*hashes.tolist()}) == len(keys)
    assert np.array_equal(hashes[::-1], hash_keys(np.array([key.encode() for key in keys], "S96")[::-1]))
    assert set(repeated([hashes, hashes[:3]]).tolist()) == set(hashes[:3].tolist())


def test_the_faults_of_a_shard_are_counted_where_they_are_many(whole, copy, monkeypatch):
    monkeypatch.setattr("shards.compare.MAX_FAULTS", 5)
    swap_shards(copy)
    faults = verify(copy)
    assert len([fault for fault in faults if fault.startswith("train-000000")]) == 6
    assert any(fault.endswith(" more faults of this shard") for fault in faults)


def test_the_order_of_faults_does_not_depend_on_the_processes(copy):
    swap_shards(copy)
    (copy / "test-000000.idx").unlink()
    assert verify(copy, workers=2) == verify(copy, workers=1) != []


@pytest.mark.parametrize("name", ["train.index.npy", "train.labels.npy", "classes.csv", "test.truths.csv"])
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


def command(*args: str) -> subprocess.CompletedProcess:
    return run_here("-m", "shards", *args)


def test_commands_and_their_exit_codes(copy, tmp_path):
    done = command("verify", copy)
    assert (done.returncode, done.stdout) == (0, f"{copy} is whole: every byte is as it was packed\n")
    done = command("repair", copy)
    assert (done.returncode, done.stdout) == (0, f"{copy} is whole: there is nothing to repair\n")
    (copy / "train-000001.idx").unlink()
    (copy / "classes.csv").write_text("label")
    done = command("verify", copy, "--workers", 1)
    assert (done.returncode, done.stdout) == (
        1, "train-000001.idx: missing\nclasses.csv: has the columns 'label', not label,landmark_id,images,name\n")
    done = command("repair", copy)
    assert (done.returncode, done.stdout) == (
        1, "rebuilt train-000001.idx\nclasses.csv: has 5 bytes, was packed with 58, and no other file has its "
           "content: restore it from a backup\n")


def test_wrong_usage_is_exit_code_2(copy, tmp_path):
    done = command("verify", tmp_path / "no")
    assert (done.returncode, done.stderr) == (
        2, f"shards: there is no folder {tmp_path}/no: give a dataset that preprocess/make_shards.py wrote\n")
    done = command("repair", copy, "--workers", 0)
    assert (done.returncode, done.stderr) == (2, "shards: --workers is 0: give at least 1\n")
    assert command("verify").returncode == command("mend", copy).returncode == 2
    (copy / "dataset.json").write_text('{"format_version": 1, "splits": {}}')
    done = command("verify", copy)
    assert done.returncode == 2 and "dataset.json lacks files, num_classes, packing: rebuild it with " in done.stderr
