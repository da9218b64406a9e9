"""Dataset: the right bytes, damage named, mistakes answered, maps that neither leak nor break threads."""
import gc
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed
from PIL import Image

import shards.dataset
from arcshard.console import UserError
from loader import Loader
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from shards import CorruptSample, Dataset, splits
from shards.tables import read_truths


def make(folder: Path, seed: int = 0) -> Path:
    """40 photos: 30 train (10 shards), 10 test, of which 5 have no landmark; returns the dataset's folder."""
    rng = np.random.default_rng(seed)
    photos = folder / "photos"
    photos.mkdir(parents=True)
    rows = []
    for number in range(40):
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"k{number}.jpg", quality=90, subsampling="4:2:0")
        label = -1 if number >= 35 else number % 3
        split = "train" if number < 30 else "test"
        rows.append((f"k{number}", "" if label == -1 else f"L{label}", label, split))
    samples = pd.DataFrame(rows, columns=["id", "landmark_id", "label", "split"])
    pack(samples, [photos], folder / "out", PackOptions(shard_size=3), Engine())
    return folder / "out"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


def test_samples_are_the_photos_with_their_labels(whole):
    train, test = Dataset(whole), Dataset(whole, "test")
    assert (len(train), len(test), train.num_classes) == (30, 10, 3)
    assert train.landmark_ids == ["L0", "L1", "L2"] and splits(whole) == ["test", "train"]
    for dataset, expected in ((train, range(30)), (test, range(30, 40))):
        numbers = [int(key[1:]) for key in dataset.index["key"]]
        assert sorted(numbers) == list(expected)
        for i, number in enumerate(numbers):
            photo = (whole.parent / "photos" / f"k{number}.jpg").read_bytes()
            assert dataset.read(i) == dataset.view(i).tobytes() == photo
            assert dataset.labels[i] == (-1 if number >= 35 else number % 3)
    assert train.labels.dtype == np.int32
    assert set(train.index["width"]) == {32} and set(train.index["height"]) == {24}


def test_samples_are_shuffled(whole):
    numbers = [int(key[1:]) for key in Dataset(whole).index["key"]]
    assert abs(np.corrcoef(numbers, range(30))[0, 1]) < 0.6


def test_views_map_the_file_and_are_read_only(whole):
    dataset = Dataset(whole)
    assert dataset.view(4).base is not None and not dataset.view(4).flags.writeable
    assert not dataset.index.flags.writeable and not dataset.labels.flags.writeable
    with pytest.raises(IndexError):
        dataset.view(30)


def test_fingerprint_follows_the_bytes_of_its_split(whole, copy, tmp_path):
    other = make(tmp_path / "other", seed=1)
    assert Dataset(whole).fingerprint == Dataset(copy).fingerprint != Dataset(other).fingerprint
    assert Dataset(whole).fingerprint != Dataset(whole, "test").fingerprint
    for name in ("train-000004.tar", "train.labels.npy", "train.index.npy"):
        manifest = json.loads((whole / "dataset.json").read_text())
        manifest["files"][name]["sha256"] = "0" * 64
        (copy / "dataset.json").write_text(json.dumps(manifest))
        assert Dataset(copy).fingerprint != Dataset(whole).fingerprint
        assert Dataset(copy, "test").fingerprint == Dataset(whole, "test").fingerprint


def test_damage_names_split_shard_key_and_offset(copy):
    row = Dataset(copy).index[20]
    with open(copy / "train-000006.tar", "r+b") as f:
        f.seek(row["offset"] + 100)
        byte = f.read(1)[0]
        f.seek(row["offset"] + 100)
        f.write(bytes([byte ^ 1]))
    dataset = Dataset(copy)
    with pytest.raises(CorruptSample) as error:
        dataset.read(20)
    assert str(error.value) == (f"sample {row['key'].decode()} of split train is damaged: its bytes at "
                                f"offset {row['offset']} of train-000006.tar are not those that were packed")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)
    assert dataset.view(20).size == row["size"] and dataset.read(19) and dataset.read(21)


@pytest.mark.parametrize("size", [0, 1000])
def test_truncated_shards_are_damage_too(copy, size):
    os.truncate(copy / "train-000002.tar", size)
    with pytest.raises(CorruptSample, match="of train-000002.tar are not those that were packed"):
        Dataset(copy).read(8)


def test_pickles_and_reads_in_other_processes(whole):
    dataset = Dataset(whole)
    expected = [dataset.read(i) for i in range(30)]
    assert len(pickle.dumps(dataset)) < 1000
    assert Parallel(n_jobs=2)(delayed(dataset.read)(i) for i in range(30)) == expected


def test_many_threads_and_few_maps(whole, monkeypatch):
    """Ten shards through two maps from eight threads: views outlive the maps that others push out."""
    expected = [Dataset(whole).read(i) for i in range(30)]
    monkeypatch.setattr(shards.folder, "MAX_OPEN_SHARDS", 2)
    dataset = Dataset(whole)
    ids = random.Random(0).choices(range(30), k=3000)
    with ThreadPoolExecutor(8) as pool:
        views = list(pool.map(dataset.checked_view, ids))
    assert [view.tobytes() for view in views] == [expected[i] for i in ids]


def test_file_descriptors_are_few_and_returned(whole, monkeypatch):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    monkeypatch.setattr(shards.folder, "MAX_OPEN_SHARDS", 3)
    gc.disable()  # reference counts alone must return them
    try:
        before = open_files()
        dataset = Dataset(whole)
        assert open_files() == before
        for i in [*range(30), *range(30)]:
            dataset.read(i)
        assert dataset.labels[0] >= 0
        assert before < open_files() <= before + 3 + 2  # maps of shards, index and labels
        del dataset
        assert open_files() == before
    finally:
        gc.enable()


def test_importing_shards_imports_neither_torch_nor_dali():
    code = ("import sys, shards.__main__, shards.writer\n"
            "assert not {'torch', 'nvidia.dali', 'webdataset', 'matplotlib'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def error_of(path: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as error:
        Dataset(path, split)
    return str(error.value)


def test_mistakes_get_one_sentence(copy, tmp_path):
    assert error_of(tmp_path / "no") == (
        f"there is no folder {tmp_path}/no: give a dataset that preprocess/make_shards.py wrote")
    assert error_of(tmp_path) == (
        f"{tmp_path} is not a dataset, it has no dataset.json: give the folder that "
        "preprocess/make_shards.py wrote")
    assert error_of(copy, "val") == f"{copy} has no split 'val': choose one of test, train"
    (tmp_path / ".packing").mkdir()
    assert error_of(tmp_path) == (f"{tmp_path} is not a dataset yet, its packing was interrupted: run the "
                                  "same make_shards.py command again")
    (copy / "dataset.json").write_text('{"format_version": 7}')
    assert error_of(copy) == (f"{copy} has format version 7, and this arcshard reads version 1: "
                              "pack it again, or use the arcshard that wrote it")
    (copy / "dataset.json").write_text("[]")
    assert error_of(copy) == f"{copy}/dataset.json is not a JSON object: rebuild it with python -m shards repair"
    (copy / "dataset.json").write_text('{"format_ver')
    assert error_of(copy) == (f"{copy}/dataset.json is not valid JSON: rebuild it with python -m shards "
                              "repair")
    (copy / "dataset.json").unlink()
    assert error_of(copy) == (f"{copy} has tars but no dataset.json: "
                              "rebuild it with python -m shards repair")


@pytest.mark.parametrize("change, sentence", [
    (lambda m: m.pop("files"), "lacks files"),
    (lambda m: m.update(num_classes=-1), "has a num_classes that is no count"),
    (lambda m: m.update(num_classes="3"), "has a num_classes that is no count"),
    (lambda m: m.update(packing=None), "has a packing that is no object"),
    (lambda m: m.update(splits=[]), "names no splits"),
    (lambda m: m["splits"].update({"a/b": {"samples": 1, "shards": 1}}), "has damaged splits, the first 'a/b'"),
    (lambda m: m["splits"]["test"].update(samples=0), "has damaged splits, the first 'test'"),
    (lambda m: m["splits"]["test"].update(shards="2"), "has damaged splits, the first 'test'"),
    (lambda m: m["splits"].update(val=3), "has damaged splits, the first 'val'"),
    (lambda m: m["files"].update({"../x": {"size": 0, "sha256": "0" * 64}}), "has damaged files, the first '../x'"),
    (lambda m: m["files"]["classes.csv"].pop("size"), "has damaged files, the first 'classes.csv'"),
    (lambda m: m["files"]["classes.csv"].update(sha256="0"), "has damaged files, the first 'classes.csv'"),
    (lambda m: m["files"]["classes.csv"].update(size=1.5), "has damaged files, the first 'classes.csv'")])
def test_a_damaged_manifest_is_one_sentence(copy, change, sentence):
    manifest = json.loads((copy / "dataset.json").read_text())
    change(manifest)
    (copy / "dataset.json").write_text(json.dumps(manifest))
    assert error_of(copy) == f"{copy}/dataset.json {sentence}: rebuild it with python -m shards repair"


def test_truths_are_the_labels_unless_a_file_says_more(copy):
    dataset = Dataset(copy, "test")
    assert dataset.truths() == [{label} if label >= 0 else set() for label in dataset.labels.tolist()]
    rows = [3, 0]
    keys = [dataset.index["key"][row].decode() for row in rows]
    (copy / "test.truths.csv").write_text(f"id,labels\n{keys[0]},2 0\n{keys[1]},1 0 2\n")
    several = Dataset(copy, "test").truths()
    assert several[3] == {0, 2} and several[0] == {0, 1, 2}
    assert several[1:3] + several[4:] == dataset.truths()[1:3] + [
        {label} if label >= 0 else set() for label in dataset.labels[4:].tolist()]
    assert Dataset(copy).truths() == [{label} for label in Dataset(copy).labels.tolist()]


@pytest.mark.parametrize("text, reason", [
    ("id,label\n", "has the columns 'id,label', not id,labels"), ("", "has the columns '', not id,labels"),
    ("id,labels\nk1\n", "a row has 1 fields, not 2"),
    ("id,labels\nk1,1\n", "sample 'k1' has '1', not several labels separated by spaces"),
    ("id,labels\nk1,1  2\n", "sample 'k1' has '1  2', not several labels separated by spaces"),
    ("id,labels\nk1,1 -1\n", "sample 'k1' has '1 -1', not several labels separated by spaces"),
    ("id,labels\nk1,1 2\nk1,2 1\n", "has sample 'k1' twice")])
def test_wrong_truths_are_refused_with_the_reason(tmp_path, text, reason):
    (tmp_path / "test.truths.csv").write_text(text)
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_truths(tmp_path / "test.truths.csv")


@pytest.mark.parametrize("name, used", [
    ("classes.csv", lambda copy: Dataset(copy).landmark_ids), ("rejected.csv", lambda copy: Dataset(copy).rejected()),
    ("train.index.npy", lambda copy: Dataset(copy).index), ("train.labels.npy", lambda copy: Dataset(copy).labels),
    ("train.labels.npy", lambda copy: next(iter(Loader(Dataset(copy), batch_size=2, size=8))))])
def test_a_file_that_is_damaged_or_gone_is_one_sentence_when_it_is_used(copy, name, used):
    """One bit is enough: a label or a class of another name would train and answer without a word."""
    data = bytearray((copy / name).read_bytes())
    data[-2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(UserError, match=f"^{copy}/{name} is damaged, .* run python -m shards repair {copy}$"):
        used(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"^{copy}/{name} is missing: run python -m shards repair {copy}$"):
        used(copy)


def test_a_count_that_is_not_that_of_the_file_is_one_sentence(copy):
    manifest = json.loads((copy / "dataset.json").read_text()) | {"num_classes": 5}
    manifest["splits"]["train"]["samples"] = 20
    (copy / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"^{copy}/classes.csv has 3 classes, dataset.json counts 5: run python -m "):
        Dataset(copy).landmark_ids
    with pytest.raises(UserError, match=f"^{copy}/train.labels.npy has 30 rows, dataset.json counts 20 samples: run "):
        Dataset(copy).labels
