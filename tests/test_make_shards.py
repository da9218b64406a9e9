"""make_shards.py: the same bytes whoever packs, nothing lost by a kill, and the answer to each mistake."""
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from arcshard.console import UserError
from arcshard.files import sha256
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.output import LocalOutput
from preprocess.packing.pack import pack
from preprocess.samples.sample_table import read_samples, shuffled
from shards import Dataset
from shards.verify import verify
from tests.commands import run_here
from tests.photo_archives import write_folder, zip_bytes

SCRIPT = Path(__file__).parents[1] / "preprocess" / "make_shards.py"
COLUMNS = ["id", "landmark_id", "label", "split"]


def photo(seed: int, width: int = 40, height: int = 30, **options) -> bytes:
    rng = np.random.default_rng(seed)
    out = io.BytesIO()
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=80, subsampling="4:2:0", **options)
    return out.getvalue()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """samples.csv of 60 train and 12 val photos in img/train/a/b/c/, every fifth progressive, four bad."""
    folder = tmp_path_factory.mktemp("raw")
    rows = []
    for number in range(72):
        key = f"{number * 2654435761 % 2**32:08x}"
        data = photo(number, progressive=number % 5 == 0)
        data = {7: b"", 8: b"<html>", 9: data[:400]}.get(number, data)
        if number != 10:
            write(folder / "img" / "train" / key[0] / key[1] / key[2] / f"{key}.jpg", data)
        rows.append((key, f"{100 + number % 6}", number % 6, "train" if number < 60 else "val"))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "samples.csv", index=False)
    return folder


def arguments(raw: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "--samples", str(raw / "samples.csv"), "--images", str(raw / "img"),
            "--out", str(out), "--shard-size", "7", *options]


def make(raw: Path, out: Path, *options: str) -> subprocess.CompletedProcess:
    return run_here(*arguments(raw, out, *options)[1:])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def packed(raw, tmp_path_factory) -> Path:
    """Packed by one worker, without interruption."""
    out = tmp_path_factory.mktemp("packed") / "out"
    done = make(raw, out, "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("train: 56 photos packed, 4 rejected, 9 shards, ")
    assert "\nval: 12 photos packed, 0 rejected, 2 shards, " in done.stdout
    return out


def test_the_dataset_is_whole_and_holds_what_was_asked(raw, packed):
    assert verify(packed) == []
    samples = pd.read_csv(raw / "samples.csv", dtype=str).set_index("id")
    train, val = Dataset(packed), Dataset(packed, "val")
    assert train.landmark_ids == [str(landmark) for landmark in range(100, 106)]
    keys = [key.decode() for key in [*train.index["key"], *val.index["key"]]]
    assert len(set(keys)) == 68 and (samples["split"][keys] == ["train"] * 56 + ["val"] * 12).all()
    assert samples["label"][keys].astype(int).tolist() == [*train.labels, *val.labels]
    classes = pd.read_csv(packed / "classes.csv", keep_default_na=False)
    assert classes.columns.tolist() == ["label", "landmark_id", "images", "name"]
    assert classes["images"].tolist() == np.bincount(train.labels).tolist()


def test_rejects_are_listed_with_their_reasons(raw, packed):
    ids = pd.read_csv(raw / "samples.csv", dtype=str)["id"]
    rejected = pd.read_csv(packed / "rejected.csv", dtype=str)
    assert rejected.columns.tolist() == ["id", "split", "reason"]
    reasons = dict(zip(rejected["id"], rejected["reason"]))
    assert reasons.pop(ids[9]).startswith("truncated or corrupt: ")
    assert reasons == {ids[7]: "empty file", ids[8]: "not an image", ids[10]: "file not found"}
    assert rejected["id"].is_monotonic_increasing
    assert Dataset(packed).rejected() == rejected.to_numpy().tolist()


def test_nothing_of_the_machine_is_in_the_manifest(raw, packed):
    manifest = json.loads((packed / "dataset.json").read_text())
    assert list(manifest) == ["format_version", "num_classes", "splits", "packing", "files"]
    assert manifest["splits"] == {"train": {"samples": 56, "shards": 9}, "val": {"samples": 12, "shards": 2}}
    assert list(manifest["packing"]) == ["short_side", "quality", "verify", "shard_size", "seed", "jpeg",
                                         "color", "resample", "samples_sha256", "names_sha256"]
    assert set(manifest["files"]) == {path.name for path in packed.iterdir()} - {"dataset.json"}
    assert str(raw) not in (packed / "dataset.json").read_text()


def test_three_workers_give_the_same_bytes(raw, packed, tmp_path):
    done = make(raw, tmp_path / "out", "--workers", "3")
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "out") == digests(packed)


def test_another_seed_gives_another_order(raw, packed, tmp_path):
    done = make(raw, tmp_path / "out", "--workers", "1", "--seed", "1")
    assert done.returncode == 0, done.stderr
    one, other = Dataset(packed).index["key"], Dataset(tmp_path / "out").index["key"]
    assert set(one) == set(other) and list(one) != list(other)


def test_kill_9_loses_nothing(raw, packed, tmp_path):
    """Only the packer is killed; its workers live on and may finish their shards while the next one runs."""
    out, work = tmp_path / "out", tmp_path / "out" / ".packing"
    process = subprocess.Popen(arguments(raw, out, "--workers", "2"), start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not list(work.glob("*-00000?")):
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert not (out / "dataset.json").exists() and len(list(work.glob("*-00000?"))) < 11
        done = make(raw, out, "--workers", "1")
        assert done.returncode == 0, done.stderr
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert digests(out) == digests(packed)


def test_an_interruption_at_any_step_of_publishing_loses_nothing(raw, packed, tmp_path, monkeypatch):
    """The 1st move fails, then the 2nd, … until a call goes through; dataset.json is not there before."""
    samples = pd.read_csv(raw / "samples.csv", dtype={"id": str, "landmark_id": str})
    out = tmp_path / "out"
    move, moves_left = LocalOutput.move, 0

    def failing_move(output: LocalOutput, source: str, name: str) -> None:
        nonlocal moves_left
        if moves_left == 0:
            raise KeyboardInterrupt
        moves_left -= 1
        move(output, source, name)

    monkeypatch.setattr(LocalOutput, "move", failing_move)
    for step in range(40):
        moves_left = step
        try:
            pack(samples, [raw / "img"], out, PackOptions(shard_size=7), Engine())
            break
        except KeyboardInterrupt:
            assert not (out / "dataset.json").exists()
    assert step > 25  # each of the 6 tables and 22 files of shards was the first that failed
    assert digests(out) == digests(packed)


def test_a_finished_output_is_left_alone(raw, packed, tmp_path):
    """Nor does it need the photos again."""
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    (packed / ".packing").mkdir()  # as a kill after the last file would leave it
    done = make(raw, packed, "--images", str(tmp_path / "gone"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"nothing to do: {packed} is already packed with these options\ntrain: 56 photos ")
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


def test_a_dataset_that_an_earlier_version_packed_has_the_same_options(raw, packed, tmp_path):
    """They recorded "resample": "area" and "colour"; all other files are equal."""
    old = tmp_path / "old"
    shutil.copytree(packed, old)
    manifest = json.loads((packed / "dataset.json").read_text())
    assert manifest["packing"]["resample"] == "gaussian-linear"
    manifest["packing"] = as_earlier_versions_wrote(manifest["packing"])
    (old / "dataset.json").write_text(json.dumps(manifest))
    before = digests(old)
    assert make(raw, old).stdout.startswith("nothing to do: ")
    assert digests(old) == before
    rows = pd.read_csv(raw / "samples.csv", dtype=str)
    pd.concat([rows, rows.head(1).assign(id="late")]).to_csv(tmp_path / "more.csv", index=False)
    write(tmp_path / "img" / "late.jpg", photo(99))
    done = make(raw, old, "--samples", str(tmp_path / "more.csv"), "--images", str(tmp_path / "img"), "--append")
    assert done.returncode == 0, done.stderr
    assert len(Dataset(old)) == len(Dataset(packed)) + 1
    assert "resample was bicubic, is gaussian-linear" in refusal(make(raw, edited(old, resample="bicubic")))


def as_earlier_versions_wrote(packing: dict) -> dict:
    return {{"color": "colour"}.get(name, name): "area" if name == "resample" else value
            for name, value in packing.items()}


def edited(dataset: Path, **packing: str) -> Path:
    manifest = json.loads((dataset / "dataset.json").read_text())
    (dataset / "dataset.json").write_text(json.dumps(manifest | {"packing": manifest["packing"] | packing}))
    return dataset


def test_an_unfinished_packing_of_an_earlier_version_goes_on(raw, packed, tmp_path, monkeypatch):
    monkeypatch.setattr("preprocess.packing.pack.prepare", lambda *args: sys.exit("killed"))
    with pytest.raises(SystemExit):
        pack(read_samples(raw / "samples.csv"), [raw / "img"], tmp_path / "out", PackOptions(shard_size=7), Engine())
    monkeypatch.undo()
    plan = tmp_path / "out" / ".packing" / "plan.json"
    plan.write_text(json.dumps(as_earlier_versions_wrote(json.loads(plan.read_text()))))
    assert make(raw, tmp_path / "out").returncode == 0
    assert digests(tmp_path / "out") == digests(packed)


def test_an_estimate_writes_nothing(raw, tmp_path):
    done = make(raw, tmp_path / "out", "--estimate", "20", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert re.match(r"estimated from 20 of 72 photos\n  size +[\d.]+ kB ± [\d.]+ kB\n  time +about 0 s with 2 workers "
                    r"\([\d.]+ ms per photo and worker\)\n  rejects +\d of 20, so about \d+ in all\n", done.stdout)
    assert not (tmp_path / "out").exists()
    assert "--estimate is 0: give at least 1" in make(raw, tmp_path / "out", "--estimate", "0").stderr
    old = make(raw, tmp_path / "out", "--rehearse", "20")
    assert old.returncode == 2 and "--rehearse is now --estimate" in old.stderr


def refusal(done: subprocess.CompletedProcess) -> str:
    """The one sentence on stderr of a command that exits with code 2."""
    assert done.returncode == 2, done.stderr
    return done.stderr.rpartition("make_shards.py: ")[2].removesuffix("\n")


def test_changed_options_and_samples_are_refused(raw, packed, tmp_path):
    changes = {"--quality": ("80", "quality was 90, is 80"), "--seed": ("3", "seed was 0, is 3"),
               "--short-side": ("9", "short_side was None, is 9"),
               "--shard-size": ("8", "shard_size was 7, is 8"),
               "--max-pixels": ("1000", "max_pixels was 89478485, is 1000")}
    for option, (value, difference) in changes.items():
        assert refusal(make(raw, packed, option, value)) == (
            f"{packed} was packed with other options ({difference}): repeat those, or choose another --out")
    other = tmp_path / "samples.csv"
    lines = (raw / "samples.csv").read_text().splitlines(keepends=True)
    other.write_text("".join(lines[:-1]))
    sentence = refusal(make(raw, packed, "--samples", str(other)))
    assert "was packed with other options (samples_sha256 was " in sentence


def test_changed_options_of_an_unfinished_output_are_refused(raw, tmp_path):
    write(tmp_path / "out" / ".packing" / "plan.json", b'{"quality": 50}')
    assert "was packed with other options (short_side was" not in refusal(make(raw, tmp_path / "out"))
    assert "quality was 50, is 90" in refusal(make(raw, tmp_path / "out"))


def test_a_second_packer_is_refused(raw, tmp_path):
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert refusal(make(raw, tmp_path)) == (
            f"{tmp_path} is locked: another process writes into it; wait until it ends")
    finally:
        os.close(handle)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 160 KB: too small for the dataset (about 190 KB) until it is made larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_too_small_is_said_before_the_first_photo(raw, packed, small_disk):
    out = small_disk / "out"
    sentence = refusal(make(raw, out, "--workers", "2"))
    assert sentence.startswith(f"the disk of {out} is too small: it has 163.8 kB left, and the dataset needs about ")
    assert sentence.endswith("make space, choose another --out, or a smaller --short-side")
    assert not list((out / ".packing").glob("train-*"))
    assert not (out / ".packing" / "plan.json").exists()  # so that a smaller --short-side is accepted
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert make(raw, out, "--workers", "1").returncode == 0
    assert digests(out) == digests(packed)


def test_a_disk_that_fills_up_is_one_sentence_and_the_next_run_goes_on(raw, packed, small_disk, monkeypatch):
    out = small_disk / "out"
    samples = read_samples(raw / "samples.csv")
    monkeypatch.setattr(LocalOutput, "free_bytes", lambda output: None)  # as if others had filled it meanwhile
    with pytest.raises(UserError) as error:
        pack(samples, [raw / "img"], out, PackOptions(shard_size=7), Engine(2))
    assert str(error.value) == (f"no room left for {out} (No space left on device): "
                                "make space and run the same command again")
    assert [path.name for path in out.iterdir()] == [".packing"] and list((out / ".packing").glob("train-*"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert make(raw, out, "--workers", "1").returncode == 0
    assert digests(out) == digests(packed)


def test_wrong_arguments_are_refused(raw, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "photos.zip").write_bytes(b"PK")
    assert refusal(make(raw, out, "--images", str(tmp_path / "photos.zip"))) == (
        f"{tmp_path}/photos.zip is neither a whole zip nor an uncompressed tar: check --images")
    assert refusal(make(raw, out, "--samples", "no.csv")) == "there is no file no.csv: check the path"
    assert refusal(make(raw, out, "--workers", "0")) == "--workers is 0: give at least 1"
    assert refusal(make(raw, out, "--quality", "101")) == "--quality is 101: give 1 to 100"
    assert refusal(make(raw, out, "--max-pixels", "0")) == "--max-pixels is 0: give at least 1"
    assert refusal(make(raw, out, "--short-side", "0")) == "--short-side is 0: give at least 1"
    assert [path.name for path in out.iterdir()] == [".packing"]  # archives that were indexed stay so
    write(out / "thesis.tex", b"")
    assert refusal(make(raw, out)) == (
        f"{out} holds other files (thesis.tex): choose for --out a new folder, or one that this command began")
    assert {path.name for path in out.iterdir()} == {".packing", "thesis.tex"}


def frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


UNFIT_LABELS = "the labels of the sample table do not number its landmarks 0, 1, …, one for each landmark_id (2 pairs"


@pytest.mark.parametrize("rows, sentence", [
    ([("a", "1", 0, "train"), ("b", "2", 2, "train")], UNFIT_LABELS),
    ([("a", "1", 0, "train"), ("b", "2", 0, "train")], UNFIT_LABELS),
    ([("a", "1", 0, "train"), ("b", "1", 1, "train")], UNFIT_LABELS),
    ([("a.b", "1", 0, "train")],
     "the sample table has the id 'a.b' (1 such ids)"),
    ([("a", "1", 0, "train"), ("a", "1", 0, "val")],
     "the sample table has the id a several times (1 rows too many)"),
    ([("a", "1", 0, "my split")],
     "the sample table has the split 'my split'"),
], ids=["gap", "two landmarks", "two labels", "key", "double", "split"])
def test_tables_that_the_format_cannot_hold_are_refused(tmp_path, rows, sentence):
    with pytest.raises(UserError) as error:
        pack(frame(rows), [tmp_path], tmp_path / "out", PackOptions(), Engine())
    assert str(error.value).startswith(sentence)


def test_labels_must_be_integers(raw, tmp_path):
    (tmp_path / "samples.csv").write_text("id,landmark_id,label,split\na,1,zero,train\n")
    assert refusal(make(raw, tmp_path / "out", "--samples", str(tmp_path / "samples.csv"))) == (
        f"{tmp_path}/samples.csv has the label 'zero'; labels are -1 (no landmark), 0, 1, …: make the "
        "table with preprocess/clean.py")


def test_where_photos_are_looked_for(tmp_path):
    """In DIR/a/b/c, DIR/train/a/b/c, DIR/test/a/b/c, DIR/index/a/b/c, DIR."""
    for number, place in enumerate(["a/b/c", "train/a/b/c", "test/a/b/c", "index/a/b/c", "."]):
        write(tmp_path / str(number) / place / "abcd.jpg", photo(number))
        pack(frame([("abcd", "1", 0, "train")]), [tmp_path / str(number)], tmp_path / f"out{number}", PackOptions(),
             Engine())
        assert Dataset(tmp_path / f"out{number}").read(0) == photo(number)


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_two_photos_for_one_id_are_refused_until_a_path_tells_them_apart(kind, tmp_path):
    files = {"train/a/b/c/abcd.jpg": photo(0), "test/a/b/c/abcd.jpg": photo(1), "efgh.jpg": photo(2)}
    images = tmp_path / "img.zip" if kind == "zip" else write_folder(tmp_path / "img", files)
    if kind == "zip":
        images.write_bytes(zip_bytes(files))
    table, out = tmp_path / "samples.csv", tmp_path / "out"
    samples = frame([("abcd", "1", 0, "train"), ("efgh", "1", 0, "train")])
    for path, expected in ((None, None), ("test/a/b/c/abcd.jpg", photo(1))):
        (samples if path is None else samples.assign(path=[path, "efgh.jpg"])).to_csv(table, index=False)
        for options in (["--estimate", "2"], []):
            done = make(tmp_path, out, "--images", str(images), *options)
            if path is None:
                assert "(train/a/b/c/abcd.jpg, test/a/b/c/abcd.jpg" in refusal(done) and "column path" in done.stderr
            else:
                assert done.returncode == 0, done.stderr
    dataset = Dataset(out)
    assert {dataset.index["key"][i].decode(): dataset.read(i) for i in range(2)} == {"abcd": photo(1), "efgh": photo(2)}


def test_short_keys_lie_flat_and_folders_are_no_photos(tmp_path):
    write(tmp_path / "img" / "ab.jpg", photo(0))
    (tmp_path / "img" / "folder.jpg").mkdir()
    samples = frame([("ab", "", -1, "test"), ("folder", "", -1, "test")])
    pack(samples, [tmp_path / "img"], tmp_path / "out", PackOptions(), Engine())
    test = Dataset(tmp_path / "out", "test")
    assert (len(test), test.num_classes, test.landmark_ids, test.labels.tolist()) == (1, 0, [], [-1])
    rejected = (tmp_path / "out" / "rejected.csv").read_text()
    assert rejected == "id,split,reason\nfolder,test,unreadable: Is a directory\n"


def test_empty_shards_and_splits_are_not_published(tmp_path):
    """Half of the one-photo shards hold a missing photo; shards are numbered without a gap."""
    keys = [f"k{number}" for number in range(10)]
    for key in keys[::2]:
        write(tmp_path / "img" / f"{key}.jpg", photo(1))
    samples = frame([(key, "1", 0, "train") for key in keys] + [("gone", "1", 0, "val")])
    pack(samples, [tmp_path / "img"], tmp_path / "out", PackOptions(shard_size=1), Engine())
    assert verify(tmp_path / "out") == []
    assert Dataset(tmp_path / "out").index["shard"].tolist() == [0, 1, 2, 3, 4]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["splits"] == {
        "train": {"samples": 5, "shards": 5}}


def test_a_dataset_without_photos_is_refused_and_can_be_packed_again(tmp_path):
    samples = frame([("a", "1", 0, "train"), ("b", "1", 0, "train")])
    for _ in range(2):
        (tmp_path / "img").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=r"no photo could be packed: all 2 were rejected "
                                            r"\(the first, .: file not found\); check --images .*<id>\.jpg"):
            pack(samples, [tmp_path / "img"], tmp_path / "out", PackOptions(), Engine())
    write(tmp_path / "img" / "a.jpg", photo(0))
    assert pack(samples, [tmp_path / "img"], tmp_path / "out", PackOptions(), Engine())
    assert len(Dataset(tmp_path / "out")) == 1


def test_short_side_is_applied(tmp_path):
    write(tmp_path / "a.jpg", photo(0, 400, 300))
    write(tmp_path / "b.jpg", photo(0, 40, 30))
    samples = frame([("a", "1", 0, "train"), ("b", "1", 0, "train")])
    pack(samples, [tmp_path], tmp_path / "out", PackOptions(short_side=100), Engine())
    rows = Dataset(tmp_path / "out").index
    sizes = {row["key"].decode(): (int(row["width"]), int(row["height"])) for row in rows}
    assert sizes == {"a": (133, 100), "b": (40, 30)}


def test_larger_photos_are_rejected_unless_max_pixels_admits_them(tmp_path):
    for name, width in [("a", 40), ("b", 41)]:
        write(tmp_path / f"{name}.jpg", photo(0, width, 30))
    frame([("a", "1", 0, "train"), ("b", "1", 0, "train")]).to_csv(tmp_path / "samples.csv", index=False)
    options = ["--samples", str(tmp_path / "samples.csv"), "--images", str(tmp_path), "--max-pixels", "1200"]
    assert make(tmp_path, tmp_path / "out", *options).returncode == 0
    assert (tmp_path / "out" / "rejected.csv").read_text().splitlines()[1:] == ["b,train,more than 1200 pixels"]
    assert make(tmp_path, tmp_path / "out", *options).stdout.startswith("nothing to do")
    assert "max_pixels was 1200, is 89478485" in refusal(make(tmp_path, tmp_path / "out", *options[:-2]))


def test_the_order_does_not_depend_on_the_order_of_the_table():
    rows = frame([(f"k{number}", "1", 0, "train" if number % 3 else "val") for number in range(200)])
    other = rows.sample(frac=1, random_state=0)
    assert shuffled(rows, 5).equals(shuffled(other, 5)) and not shuffled(rows, 5).equals(shuffled(rows, 6))
    assert sorted(shuffled(rows, 5)["id"]) == sorted(rows["id"])
