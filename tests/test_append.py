"""make_shards --append: what is packed stays as it is, what is new comes after it, and no kill breaks the dataset."""
import pandas as pd
import pytest

from arcshard.console import UserError
from arcshard.files import sha256
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.output import LocalOutput
from preprocess.packing.pack import pack
from shards import Dataset
from shards.verify import verify

OPTIONS = PackOptions(shard_size=20)


def numbered(samples: pd.DataFrame) -> pd.DataFrame:
    """The rows with labels 0, 1, … as clean.py would give them on their own."""
    landmarks = sorted(set(samples["landmark_id"]) - {""})
    label = pd.Index(landmarks).get_indexer(samples["landmark_id"])
    return samples.assign(label=label).reset_index(drop=True)


@pytest.fixture
def first(photos) -> pd.DataFrame:
    """The even rows of all but the two classes that sort first: new classes will come before old ones."""
    rows = photos[1]
    return numbered(rows[(rows.index % 2 == 0) & ~rows["landmark_id"].isin(["1000", "1007"])])


def digests(folder) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


def add(photos, samples, out, **options) -> bool:
    return pack(samples, [photos[0]], out, OPTIONS, Engine(), **options)


def contents(out) -> dict[str, dict[str, str]]:
    """Split -> photo -> its landmark id."""
    found = {}
    for split in ("train", "val", "test"):
        ds = Dataset(out, split)
        landmarks = [*ds.landmark_ids, ""]
        found[split] = {key.decode(): landmarks[label] for key, label in zip(ds.index["key"], ds.labels)}
    return found


def test_an_addition_holds_all_and_keeps_what_was_there(photos, first, tmp_path):
    out = tmp_path / "out"
    add(photos, first, out)
    before = {path.name: sha256(path) for path in out.glob("*.tar")}
    old = Dataset(out)
    old_ids, old_rows, old_labels = old.landmark_ids, old.index.copy(), old.labels.copy()
    assert add(photos, photos[1], out, append=True)
    assert verify(out) == []
    assert before and {name: sha256(out / name) for name in before} == before
    new = Dataset(out)
    assert new.landmark_ids == old_ids + ["1000", "1007"]
    assert (new.index[:len(old_rows)] == old_rows).all() and (new.labels[:len(old_labels)] == old_labels).all()
    expected = {split: dict(zip(rows["id"], rows["landmark_id"])) for split, rows in photos[1].groupby("split")}
    assert contents(out) == expected
    sizes = pd.read_csv(out / "classes.csv")["images"].tolist()
    assert sizes == [10] * 6


def test_the_same_addition_again_and_the_first_command_again_do_nothing(photos, first, tmp_path):
    out = tmp_path / "out"
    add(photos, first, out)
    assert add(photos, photos[1], out, append=True)
    files = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert not add(photos, photos[1], out, append=True)
    assert not add(photos, first, out)
    assert not add(photos, first, out, append=True)  # all its rows are there
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == files


def test_an_addition_interrupted_at_any_step_loses_nothing(photos, first, tmp_path, monkeypatch):
    """Reference: the same addition without an interruption. The dataset is the old one, none, or the new one."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    for folder in (whole, out):
        add(photos, first, folder)
    old = digests(out)
    add(photos, photos[1], whole, append=True)
    moves_left = 0

    def failing(method):
        def attempt(*args):
            nonlocal moves_left
            moves_left -= 1
            if moves_left < 0:
                raise KeyboardInterrupt
            return method(*args)
        return attempt

    for name in ("move", "put", "remove", "write"):
        monkeypatch.setattr(LocalOutput, name, failing(getattr(LocalOutput, name)))
    states = set()
    for step in range(60):
        moves_left = step
        try:
            add(photos, photos[1], out, append=True)
            break
        except KeyboardInterrupt:
            if (out / "dataset.json").exists():
                assert {name: sha256(out / name) for name in old} == old
            states.add((out / "dataset.json").exists())
    assert states == {True, False}
    assert digests(out) == digests(whole)


def test_photos_that_were_rejected_are_tried_again(photos, tmp_path):
    rows = photos[1].head(4)
    rows = numbered(pd.concat([rows, rows.head(2).assign(id=["late", "never"])]))
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for key in rows["id"].head(4):
        (images / f"{key}.jpg").write_bytes((photos[0] / f"{key}.jpg").read_bytes())
    pack(rows, [images], out, OPTIONS, Engine())
    assert (out / "rejected.csv").read_text().count("file not found") == 2
    (images / "late.jpg").write_bytes((photos[0] / "c0n00.jpg").read_bytes())
    more = numbered(pd.concat([rows, rows.head(1).assign(id=["new"])]))
    (images / "new.jpg").write_bytes((photos[0] / "c0n01.jpg").read_bytes())
    assert pack(more, [images], out, OPTIONS, Engine(), append=True)
    assert len(Dataset(out)) == 6 and verify(out) == []
    assert (out / "rejected.csv").read_text() == "id,split,reason\nnever,train,file not found\n"


def test_mistakes_get_one_sentence(photos, first, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError) as error:
        add(photos, first, out, append=True)
    assert str(error.value) == (f"{out} has no dataset.json, so --append has no finished dataset to add to: leave "
                                "--append out, or check --out")
    add(photos, first, out)
    with pytest.raises(UserError) as error:
        pack(photos[1], [photos[0]], out, PackOptions(shard_size=20, quality=80), Engine(), append=True)
    assert str(error.value) == (f"{out} was packed with other options (quality was 90, is 80): repeat those, or choose "
                                "another --out")
    moved = photos[1].assign(split=photos[1]["split"].replace("val", "train"))
    with pytest.raises(UserError, match=r"photo \w+ is packed in split val, but the table has it in train \(\d+ such "
                                        r"rows\): .* keep the splits of the first table"):
        add(photos, moved, out, append=True)


@pytest.mark.parametrize("name, sentence", [
    ("classes.csv", "has the columns 'label', not label,landmark_id,"), ("train.index.npy", "cannot be read .EOF"),
    ("rejected.csv", "has the columns 'label', not id,split,reason"), ("train.labels.npy", "cannot be read .EOF")])
def test_a_damaged_table_is_named_and_nothing_is_added(photos, first, tmp_path, name, sentence):
    out = tmp_path / "out"
    add(photos, first, out)
    (out / name).write_text("label\n")
    before = digests(out)
    with pytest.raises(UserError, match=f"{name} of {out} {sentence}.*: run python -m shards verify"):
        add(photos, photos[1], out, append=True)
    assert {name: sha256(out / name) for name in before} == before
