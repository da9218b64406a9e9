"""predict.py takes the photos that packing takes, and refuses at its start what a submission cannot hold."""
import csv
import json
import os
import shutil
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import predict
from arcshard.console import UserError
from preprocess.images.formats import PHOTO_ENDINGS
from preprocess.samples.raw_tables import read_class_folders
from retrieval import Embeddings, Pipeline
from retrieval.run import photos as run_photos
from retrieval.store import Provenance
from shards.entry import file_entry
from tests.pictures import encoded, scene


@pytest.fixture
def folder(tmp_path) -> Path:
    """Photos of all kinds, one of them in a linked folder; hidden files and others."""
    folder, elsewhere = tmp_path / "tree" / "q", tmp_path / "elsewhere"
    folder.mkdir(parents=True)
    elsewhere.mkdir()
    for name, form in [("a.jpg", "JPEG"), ("b.TIF", "TIFF"), ("c.bmp", "BMP"), ("d.gif", "GIF"), ("f.avif", "AVIF")]:
        (folder / name).write_bytes(encoded(scene(), form))
    (elsewhere / "e.jfif").write_bytes(encoded(scene()))
    (folder / "linked").symlink_to(elsewhere)
    for name in ("._a2.jpg", "notes.txt", "h.heic", "more.txt", "README"):
        (folder / name).write_bytes(b"no photo")
    return folder


def test_photos_are_those_that_packing_takes_and_others_are_counted(folder, capsys):
    found = predict.find_photos(folder)
    assert [path.stem for path in found] == list("abcdef")
    assert capsys.readouterr().out == "left out 4 other files (.txt 2, no ending 1, .heic 1)\n"
    packed, others = read_class_folders(str(folder.parent))
    assert {path.relative_to(folder.parent).as_posix() for path in found} == set(packed["path"]) and others == 4


@pytest.mark.parametrize("ending", sorted(PHOTO_ENDINGS))
def test_every_ending_of_a_photo_counts(tmp_path, ending):
    (tmp_path / f"a{ending.upper()}").touch()
    assert len(predict.find_photos(tmp_path)) == 1


@pytest.mark.parametrize("name, words", [
    (b"caf\xe9.jpg", "'caf.udce9' is not UTF-8"), (b"a\nb.jpg", "control character"), (b"x/a.png", "same name")])
def test_names_that_a_submission_cannot_hold_are_refused_before_anything_is_loaded(folder, monkeypatch, name, words):
    path = os.path.join(os.fsencode(folder), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(folder / "a.jpg", path)
    monkeypatch.setattr(predict, "load", lambda args: pytest.fail("loaded"))
    with pytest.raises(UserError, match=words):
        predict.submit(Namespace(images=folder, sample=None))


def test_names_that_cannot_be_printed_are_refused(folder):
    with pytest.raises(UserError, match="is not UTF-8"):
        predict.check_photos([Path(os.fsdecode(b"caf\xe9.jpg"))])


def test_odd_names_have_rows(folder, tmp_path, monkeypatch):
    names = ['a,"b"', "é", " x ", "家　👨‍👩‍👧"]
    for name in names:
        shutil.copy(folder / "a.jpg", folder / f"{name}.jpg")
    blind = SimpleNamespace(landmark_ids={}, found=lambda photos: ["not an image"] * len(photos))
    monkeypatch.setattr(predict, "load", lambda args: blind)
    predict.submit(Namespace(images=folder, sample=None, out=tmp_path / "s.csv"))
    with open(tmp_path / "s.csv", newline="", encoding="utf-8") as f:
        assert {row["id"] for row in csv.DictReader(f)} == {*"abcdef", *names}


def spaced_store(folder: Path) -> str:
    Embeddings(np.ones((1, 2), np.float16), ["a"], np.zeros(1, np.int64), ["Eiffel Tower"],
               Provenance("model", "data", "train")).save(folder)
    return str(folder)


def spaced_dataset(dataset: Path, folder: Path) -> str:
    shutil.copytree(dataset, folder)
    table = folder / "classes.csv"
    table.write_text(table.read_text().replace("1000", "Eiffel Tower"))
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["files"]["classes.csv"] = file_entry(table)
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return str(folder)


@pytest.mark.parametrize("kind", ["dataset", "store"])
def test_landmarks_that_a_submission_cannot_hold_are_refused_before_photos_are_embedded(kind, dataset_path, tmp_path,
                                                                                        monkeypatch):
    """Datasets of earlier versions may have such ids; on the screen they are shown."""
    index = spaced_store(tmp_path / "store") if kind == "store" else spaced_dataset(dataset_path, tmp_path / "ds")
    model = SimpleNamespace(cache=None, fingerprint="model", tta=SimpleNamespace(name="none"), size=48,
                            sizes_in_stores=(48, 0))
    monkeypatch.setattr(run_photos, "load_model", lambda *words: model)
    monkeypatch.setattr(run_photos, "embed_split", lambda *words, **more: pytest.fail("embedded"))
    with pytest.raises(UserError, match="'Eiffel Tower'"):
        run_photos.load_index(tmp_path, "checkpoint.pt", index, Pipeline(()), submission=True)
