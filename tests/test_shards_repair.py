"""repair: what it makes of a lost dataset.json, whom it gives way to, and that no kill harms."""
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from arcshard.console import UserError
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from shards.manifest import read_manifest
from shards.repair import repair
from shards.verify import verify


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """30 photos of 3 classes: 24 train in eight shards, 6 test in two."""
    folder = tmp_path_factory.mktemp("repair")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(30):
        pixels = rng.integers(0, 256, (24, 32 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"k{number}.jpg", subsampling="4:2:0")
        rows.append((f"k{number}", f"L{number % 3}", number % 3, "train" if number < 24 else "test"))
    samples = pd.DataFrame(rows, columns=["id", "landmark_id", "label", "split"])
    pack(samples, [folder], folder / "out", PackOptions(shard_size=3), Engine())
    return folder / "out"


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


def contents(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


def test_everything_but_the_tars_and_the_classes_comes_back(whole, copy):
    for path in copy.iterdir():
        if path.suffix in (".idx", ".npy"):
            path.unlink()
    rebuilt, lost = repair(copy, workers=2)
    assert len(rebuilt) == 10 + 4 and not lost
    assert contents(copy) == contents(whole) and verify(copy) == []


@pytest.mark.parametrize("damage", ["missing", "no JSON", "without keys"])
def test_a_lost_manifest_is_made_anew_but_for_the_options(whole, copy, damage):
    """How the photos were packed stands nowhere else; what predict.py needs of it is what the photos show."""
    path = copy / "dataset.json"
    path.unlink()
    if damage != "missing":
        path.write_text({"no JSON": '{"format_ver', "without keys": '{"splits": {}}'}[damage])
    with pytest.raises(UserError, match="rebuild it with python -m shards repair"):
        verify(copy)
    assert repair(copy) == (["dataset.json"], [])
    before, after = read_manifest(whole), read_manifest(copy)
    assert after["packing"] == {"repaired": True, "short_side": 24, "quality": 90}
    assert after | {"packing": 0} == before | {"packing": 0}
    assert {**contents(copy), "dataset.json": 0} == {**contents(whole), "dataset.json": 0}
    assert verify(copy) == [] and repair(copy) == ([], [])


def test_without_manifest_and_tables_too_the_tars_suffice(whole, copy):
    for path in copy.iterdir():
        if path.suffix in (".idx", ".npy", ".json"):
            path.unlink()
    rebuilt, lost = repair(copy)
    assert len(rebuilt) == 10 + 4 + 1 and not lost
    assert {**contents(copy), "dataset.json": 0} == {**contents(whole), "dataset.json": 0}


def test_without_manifest_the_index_vouches_for_the_photos(copy):
    """A flipped bit that still decodes must not be blessed with a new sha256."""
    rows = np.load(copy / "train.index.npy")
    rows["crc32"][7] ^= 1
    np.save(copy / "train.index.npy", rows)
    (copy / "dataset.json").unlink()
    before, key = contents(copy), rows["key"][7].decode()
    assert repair(copy) == ([], [
        f"train-000002.tar: the crc32 of sample {key} is not the one in train.index.npy, and without dataset.json "
        "nothing tells which of both is damaged; if it is the index, delete it",
        "train-000002.idx: cannot be rebuilt, since a tar that it describes is damaged",
        "train.index.npy: cannot be rebuilt, since a tar that it describes is damaged",
        "train.labels.npy: cannot be rebuilt, since a tar that it describes is damaged",
        "dataset.json: cannot be rebuilt until the other faults are repaired"])
    assert contents(copy) == before
    (copy / "train.index.npy").unlink()
    assert repair(copy) == (["train.index.npy", "dataset.json"], []) and verify(copy) == []


def test_without_manifest_and_index_the_photos_must_decode(copy):
    row = np.load(copy / "train.index.npy")[7]
    with open(copy / "train-000002.tar", "r+b") as f:
        f.seek(int(row["offset"] + row["size"] - 40))
        f.write(b"\xff\xd9" * 20)  # the picture ends early
    for name in ("dataset.json", "train.index.npy"):
        (copy / name).unlink()
    rebuilt, lost = repair(copy)
    assert rebuilt == [] and lost[0].startswith(
        f"train-000002.tar: at offset {row['offset'] - 512}: member {row['key'].decode()}.jpg cannot be decoded (")


def test_without_manifest_classes_and_rejects_must_be_there(copy):
    for name in ("dataset.json", "classes.csv", "rejected.csv"):
        (copy / name).unlink()
    assert repair(copy) == ([], [
        "classes.csv: missing, and no other file has its content: restore it from a backup",
        "rejected.csv: missing, and no other file has its content: restore it from a backup",
        "dataset.json: cannot be rebuilt until the other faults are repaired"])
    (copy / "rejected.csv").write_text("id,split,reason\n")
    (copy / "classes.csv").write_text("label,landmark_id,images,name\n0,L0,8,\n1,L1,7,\n2,L2,8,\n")
    assert repair(copy).lost[0] == "classes.csv: counts '7' images of class 1, split train has 8"
    (copy / "classes.csv").write_text("label,landmark_id,images,name\n0,L0,8,\n1,L1,8,\n")
    assert repair(copy).lost == ["test.labels.npy: 2 labels are outside -1 to 1",
                                 "train.labels.npy: 8 labels are outside -1 to 1",
                                 "dataset.json: cannot be rebuilt until the other faults are repaired"]


def test_a_damaged_tar_leaves_what_depends_on_it_and_no_more(whole, copy):
    """The idx of a sound tar and the other split are mended; index and labels of the damaged split cannot be."""
    with open(copy / "train-000002.tar", "r+b") as f:
        f.seek(700)
        f.write(b"rot")
    for name in ("train-000001.idx", "train-000002.idx", "train.index.npy", "test.labels.npy"):
        (copy / name).unlink()
    np.save(copy / "train.labels.npy", np.zeros(24, np.int32))
    before = contents(copy)
    rebuilt, lost = repair(copy)
    assert rebuilt == ["test.labels.npy", "train-000001.idx"]
    assert [sentence.partition(":")[0] for sentence in lost] == [
        "train-000002.tar", "train-000002.idx", "train.index.npy", "train.labels.npy"]
    assert contents(copy) == before | {name: (whole / name).read_bytes() for name in rebuilt}
    shutil.copy(whole / "train.labels.npy", copy)
    assert "train.labels.npy" not in " ".join(repair(copy).lost)
    shutil.copy(whole / "train-000002.tar", copy)
    assert repair(copy).lost == [] and contents(copy) == contents(whole)


def test_no_dataset_is_a_sentence_and_stays_untouched(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, text in ((tmp_path / "no", "there is no folder"), (tmp_path / "empty", "it has no dataset.json")):
        with pytest.raises(UserError, match=text):
            repair(path)
    assert list((tmp_path / "empty").iterdir()) == []
    (copy / "dataset.json").write_text('{"format_version": 7}')
    with pytest.raises(UserError, match="has format version 7, .*: pack it again, or use the arcshard that wrote it"):
        repair(copy)
    (copy / "dataset.json").write_text("{")
    for path in copy.glob("*.tar"):
        path.unlink()
    with pytest.raises(UserError, match=f"{copy} has no tars to rebuild the dataset from: pack it again"):
        repair(copy)


def test_an_interrupted_packing_is_not_repaired(copy):
    (copy / "dataset.json").unlink()
    (copy / ".packing").mkdir()
    with pytest.raises(UserError, match="its packing was interrupted: run the same make_shards.py command again"):
        repair(copy)
    (copy / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="is being packed, or its packing was interrupted: run the same"):
        repair(copy)


def test_it_gives_way_to_a_packer(copy):
    (copy / "train.index.npy").unlink()
    handle = os.open(copy, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is locked: another process writes into it"):
            repair(copy)
    finally:
        os.close(handle)
    assert repair(copy) == (["train.index.npy"], [])


KILLED = """
import sys
from pathlib import Path
import os, signal
import arcshard.files, shards.repair
moves, calls = int(sys.argv[2]), 0
replace = os.replace
def counting(source, target):
    global calls
    calls += 1
    if calls > moves:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = counting
shards.repair.repair(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("moves", [0, 1, 5, 12, 17, 27, 28])
def test_a_kill_at_any_rename_loses_nothing(whole, tmp_path, moves):
    copy = shutil.copytree(whole, tmp_path / "copy")
    for path in copy.iterdir():
        if path.suffix in (".idx", ".npy"):
            path.write_bytes(b"")
    manifest = (copy / "dataset.json").read_text()
    (copy / "dataset.json").write_text(manifest.replace('"samples": 24', '"samples": 23'))
    done = subprocess.run([sys.executable, "-c", KILLED, str(copy), str(moves)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    repair(copy)
    assert contents(copy) == contents(whole) and verify(copy) == []
