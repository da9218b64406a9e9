"""train.py, evaluate.py and predict.py as a user runs them, one after the other, on a small dataset."""
import csv
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import evaluate as evaluate_page
import predict as predict_page
from arcshard import checkpoint, console
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.config import as_plain
from arcshard.files import write_text
from loader import View
from model import HeadConfig, ModelConfig, build_embedder
from retrieval import Embeddings
from retrieval.run.embed import embed_split
from retrieval.run.model import load_model, load_untrained
from retrieval.run.unpacked import UnpackedPhotos, embed_photos
from shards import Dataset
from training.config import TrainConfig


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, dataset_path):
    """A checkpoint of an untrained network: what the pages need of a run, in no time."""
    out = tmp_path_factory.mktemp("runs") / "run"
    out.mkdir()
    torch.manual_seed(0)
    model = ModelConfig(backbone="test_efficientnet", weights="none", dim=24)
    config = as_plain(model=model, head=HeadConfig(), view=View(), train=TrainConfig(size=48, device="cpu"))
    checkpoint.save(out, Checkpoint(config, Weights(build_embedder(model).state_dict(), {"weight": torch.zeros(6, 24)}),
                                    packing=Dataset(dataset_path).manifest["packing"]))
    return out


@pytest.fixture
def page(monkeypatch, capsys):
    """A page's main in this process: exit code, stdout, stderr."""
    def run(module, *words):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            console.run(module.main)
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err
    return run


def refused(answer, sentence):
    code, _, err = answer
    assert code == 2 and sentence in err and len(err.strip().splitlines()) == 1, err


def test_evaluate_writes_what_the_contract_names_and_embeds_only_once(page, run_folder, dataset_path):
    code, said, _ = page(evaluate_page, "--run", run_folder, "--data", dataset_path)
    results = json.loads((run_folder / "eval.json").read_text())
    assert code == 0 and set(results) == {"val", "test"} and "recall@1" in said
    for values in results.values():
        assert set(values) == {"gap", "gap_landmark_only", "recall@1", "map@100"}
        assert all(0 <= value <= 1 for value in values.values())
    assert results["val"]["recall@1"] > 0.6, "the made-up classes differ in color: any network tells them apart"
    _, _, err = page(evaluate_page, "--run", run_folder, "--data", dataset_path)
    assert "embed" not in err, "kept embeddings of the same weights and photos are used"


def test_kept_embeddings_of_other_weights_are_not_used(page, run_folder, dataset_path, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run_folder, other)
    page(evaluate_page, "--run", other, "--data", dataset_path)
    saved = checkpoint.load(other)
    saved.weights.embedder["neck.0.bias"] += 1.0
    checkpoint.save(other, saved)
    before = np.array(Embeddings.load(other / "embeddings" / "val").vectors)
    page(evaluate_page, "--run", other, "--data", dataset_path)
    assert not np.allclose(before, Embeddings.load(other / "embeddings" / "val").vectors)


def test_untrained_has_no_neck_and_a_file_of_its_own(page, run_folder, dataset_path):
    assert load_untrained(run_folder).embedder.dim == 256 and load_model(run_folder).embedder.dim == 24
    code, *_ = page(evaluate_page, "--run", run_folder, "--data", dataset_path, "--untrained")
    assert code == 0 and set(json.loads((run_folder / "eval-untrained.json").read_text())) == {"val", "test"}


@pytest.fixture
def queries(tmp_path, make_photo):
    """Photos as people have them: nested, capital endings, names that are no keys, one that is no image."""
    folder = tmp_path / "queries"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "0123456789abcdef.jpg").write_bytes(make_photo(0, 0))
    (folder / "My Holiday 2.JPEG").write_bytes(make_photo(3, 42))
    (folder / "broken.jpg").write_bytes(b"<html>no photo</html>")
    (folder / "notes.txt").write_text("not a photo")
    return folder


def rows_of(path):
    with open(path, newline="") as f:
        return {row["id"]: row["landmarks"] for row in csv.DictReader(f)}


def test_predict_answers_every_photo_and_leaves_nothing_else(page, run_folder, dataset_path, queries, tmp_path):
    out = tmp_path / "answers" / "submission.csv"
    code, said, _ = page(predict_page, "--run", run_folder, "--index", dataset_path, "--images", queries, "--out", out)
    rows = rows_of(out)
    assert code == 0 and "2 photos answered, 1 could not be read (first " in said
    assert list(rows) == ["0123456789abcdef", "My Holiday 2", "broken"] and rows["broken"] == ""
    # copies of two training photos: whatever the network, they are their own nearest neighbors
    assert rows["0123456789abcdef"].split()[0] == "1000" and rows["My Holiday 2"].split()[0] == "1021"
    assert float(rows["My Holiday 2"].split()[1]) > 0
    assert [path.name for path in out.parent.iterdir()] == ["submission.csv"]


def test_embeddings_as_index_give_the_same_answers(page, run_folder, dataset_path, queries, tmp_path):
    page(evaluate_page, "--run", run_folder, "--data", dataset_path)
    index = run_folder / "embeddings" / "train"
    for name, gallery in (("a.csv", dataset_path), ("b.csv", index)):
        page(predict_page, "--run", run_folder, "--index", gallery, "--images", queries, "--out", tmp_path / name)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_packed_photo_and_its_file_get_the_same_embedding(run_folder, dataset_path, photos):
    """One decode for training, evaluation and prediction: the normal form of a query is that of the gallery."""
    model = load_model(run_folder)
    alone, reasons = embed_photos(model, UnpackedPhotos([photos[0] / "c2test.jpg"], model.packing))
    test = embed_split(model, Dataset(dataset_path, "test"), None)
    assert reasons == [None]
    np.testing.assert_allclose(alone[0], test.vectors[test.keys.index("c2test")], atol=1e-5)


def test_photos_that_all_fail_are_answered_empty(page, run_folder, dataset_path, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "x.jpg").write_bytes(b"")
    code, *_ = page(predict_page, "--run", run_folder, "--index", dataset_path, "--images", folder, "--out",
                    tmp_path / "s.csv")
    assert code == 0
    assert rows_of(tmp_path / "s.csv") == {"x": ""}


def test_wrong_paths_are_one_sentence(page, run_folder, dataset_path, queries, tmp_path):
    nowhere, out = tmp_path / "nowhere", tmp_path / "s.csv"
    refused(page(evaluate_page, "--run", nowhere, "--data", dataset_path), "has no checkpoint.pt")
    refused(page(evaluate_page, "--run", run_folder, "--data", nowhere), "there is no folder")
    predict = ("--run", run_folder, "--index", dataset_path, "--out", out, "--images")
    refused(page(predict_page, *predict, nowhere), "is no folder")
    (tmp_path / "empty").mkdir()
    refused(page(predict_page, *predict, tmp_path / "empty"), "has no photos")
    (queries / "broken.jpeg").write_bytes(b"")
    refused(page(predict_page, *predict, queries), "rename one")
    refused(page(predict_page, *predict[:-1]),
            "give --images and --out for a submission, or photos to answer on the screen")
    assert not out.exists()


def test_an_index_of_other_weights_is_refused(page, run_folder, dataset_path, queries, tmp_path):
    page(evaluate_page, "--run", run_folder, "--data", dataset_path)
    stored = Embeddings.load(run_folder / "embeddings" / "train")
    index = tmp_path / "other"
    replace(stored, provenance=replace(stored.provenance, model="other")).save(index)
    refused(page(predict_page, "--run", run_folder, "--index", index, "--images", queries, "--out", tmp_path / "s"),
            "embeddings compare only with those of the same weights")
    replace(stored, provenance=replace(stored.provenance, tta="flip")).save(index)
    refused(page(predict_page, "--run", run_folder, "--index", index, "--images", queries, "--out", tmp_path / "s"),
            "--tta flip, not none")
    replace(stored, provenance=replace(stored.provenance, size=512)).save(index)
    refused(page(predict_page, "--run", run_folder, "--index", index, "--images", queries, "--out", tmp_path / "s"),
            f"at 512 pixels, not at {stored.provenance.size} pixels as photos are now")


def test_a_dataset_without_queries_is_one_sentence(page, run_folder, photos, tmp_path):
    from preprocess.engine import Engine
    from preprocess.packing.options import PackOptions
    from preprocess.packing.pack import pack
    folder, samples = photos
    pack(samples[samples["split"] == "train"], [folder], tmp_path / "ds", PackOptions(), Engine())
    refused(page(evaluate_page, "--run", run_folder, "--data", tmp_path / "ds"),
            "an evaluation needs a train split and a val or test split")


def test_a_foreign_checkpoint_format_is_one_sentence(page, run_folder, dataset_path, tmp_path):
    (tmp_path / "run").mkdir()
    torch.save({"format": 99}, tmp_path / "run" / checkpoint.NAME)
    refused(page(evaluate_page, "--run", tmp_path / "run", "--data", dataset_path), "has checkpoint format 99")
    write_text(tmp_path / "run" / checkpoint.NAME, "no checkpoint at all")
    refused(page(evaluate_page, "--run", tmp_path / "run", "--data", dataset_path), "is not a checkpoint")
