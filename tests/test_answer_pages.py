"""evaluate.py, tune.py and predict.py answer alike: one untrained run on the small packed dataset."""
import csv
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import evaluate
import predict
import retrieval.__main__
import tune
from arcshard import checkpoint
from arcshard.console import UserError
from loader import View
from model import ModelConfig, build_embedder
from retrieval.reranker import Reranker

FIRST, SECOND, CANDIDATES, THIRD, OURS = (
    f"configs/answers/{name}.yaml"
    for name in ("first-place", "second-place", "second-place-candidates", "third-place", "arcshard"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run as train.py leaves it, its weights random: what is tested is who answers, not how well."""
    out = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config = ModelConfig(backbone="test_efficientnet", weights="none", neck="bn-prelu", dim=32)
    checkpoint.save(out, {"config": {"model": asdict(config), "view": asdict(View()), "head": {"centers": 2},
                                     "train": {"size": 48, "device": "cpu"}}, "packing": {},
                          "embedder": build_embedder(config).state_dict(), "head": {"weight": torch.randn(12, 32)},
                          "ema": None})
    return out


@pytest.fixture
def page(monkeypatch, capsys):
    """Run a page's main() here; returns what it printed."""
    def call_page(module, *words):
        monkeypatch.setattr("sys.argv", [f"{module.__name__}.py", *map(str, words)])
        module.main()
        return capsys.readouterr().out
    return call_page


@pytest.fixture(scope="module")
def photo_folder(photos, tmp_path_factory):
    """The test photos by their ids, and one that is none."""
    folder = tmp_path_factory.mktemp("asked")
    for key in photos[1].loc[photos[1]["split"] == "test", "id"]:
        (folder / f"{key}.jpg").write_bytes((photos[0] / f"{key}.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def test_answers_have_files_of_their_own(page, run_folder, dataset_path):
    page(evaluate, "--run", run_folder, "--data", dataset_path)
    before = (run_folder / "eval.json").read_bytes()
    printed = page(evaluate, "--run", run_folder, "--data", dataset_path, "--answers", FIRST, "--ablate",
                   "--ensemble", run_folder)
    assert "without GalleryPenalty" in printed and (run_folder / "eval.json").read_bytes() == before
    name = f"first-place-with-{run_folder.name}"
    for prefix, least in (("eval", {"gap"}), ("eval-details", {"gap_interval_95", "worst_classes"})):
        written = json.loads((run_folder / f"{prefix}-{name}.json").read_text())
        assert set(written) == {"val", "test"} and least <= set(written["test"])
    assert all(set(values) == {"gap", "gap_landmark_only", "recall@1", "map@100"}
               for values in json.loads(before).values())


@pytest.fixture(scope="module")
def judged(run_folder, dataset_path, tmp_path_factory):
    """2nd place's learned re-ranker, fitted on the small dataset."""
    out = tmp_path_factory.mktemp("judged") / "judged.yaml"
    words = f"rerank --run {run_folder} --data {dataset_path} --answers {CANDIDATES} --seeds 1 --out {out}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["retrieval", *words.split()])
        retrieval.__main__.main()
    return out


@pytest.mark.parametrize("answers", [None, FIRST, SECOND, THIRD, OURS, "judged"])
def test_predict_answers_as_evaluate_does(page, run_folder, dataset_path, photo_folder, tmp_path, judged, answers):
    """The same photos packed again are answered by each list as the stored test split is: accuracy from the CSV."""
    answers = judged if answers == "judged" else answers
    options = ["--answers", answers] if answers else []
    page(evaluate, "--run", run_folder, "--data", dataset_path, *options)
    sample = [f"c{i}test" for i in range(6)][::-1] + [f"c{i}none" for i in (6, 7, 8)] + ["broken"]
    (tmp_path / "sample.csv").write_text("id,landmarks\n" + "".join(f"{id},\n" for id in sample))
    printed = page(predict, "--run", run_folder, "--index", dataset_path, "--images", photo_folder, "--out",
                   tmp_path / "s.csv", "--sample", tmp_path / "sample.csv", *options)
    assert "9 photos answered, 1 could not be read" in printed
    with open(tmp_path / "s.csv", newline="") as f:
        rows = {row["id"]: row["landmarks"].split() for row in csv.DictReader(f)}
    assert list(rows) == sample and rows["broken"] == []
    right = [rows[f"c{i}test"][0] == f"{1000 + 7 * i}" for i in range(6)]
    name = f"eval-details-{Path(answers).stem}.json" if answers else "eval-details.json"
    details = json.loads((run_folder / name).read_text())
    assert sum(right) / 6 == pytest.approx(details["test"]["accuracy@1"])


def test_a_judge_says_what_it_was_fitted_on_and_refuses_what_it_cannot_have(page, run_folder, dataset_path, judged):
    assert len(Reranker.load(judged.with_suffix(".json")).fitted_on) == 27
    words = "rerank", "--run", run_folder, "--data", dataset_path, "--out", judged.with_name("other.yaml")
    printed = page(retrieval.__main__, *words, "--splits", "val", "--top", "1", "--seeds", "1")
    assert "fitted on 18 queries" in printed and "val   GAP" in printed and "test  GAP" not in printed
    for more, sentence in ((["--splits", "train"], r"some with queries \(test, val\); got train"),
                           (["--top", "0"], "--top must be at least 1, not 0")):
        with pytest.raises(UserError, match=sentence):
            page(retrieval.__main__, *words, *more)


def test_photos_on_the_screen(page, run_folder, dataset_path, photo_folder):
    printed = page(predict, "--run", run_folder, "--index", dataset_path, photo_folder / "c3test.jpg",
                   photo_folder / "broken.jpg", "--answers", FIRST)
    lines = printed.splitlines()
    assert lines[0].endswith("c3test.jpg") and lines[-1].endswith("broken.jpg: could not be read")
    scores = [float(line.split()[0]) for line in lines[1:-1]]
    assert 1 <= len(scores) <= 5 and scores == sorted(scores, reverse=True)


def test_the_public_train_set_copies_the_sample(page, run_folder, photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.contest.PUBLIC_TRAIN", 1)
    (tmp_path / "train.csv").write_text("id,landmark_id\na,1\n")
    (tmp_path / "sample.csv").write_text("id,landmarks\nz,5 0.1\n")
    page(predict, "--run", run_folder, "--index", "never/read", "--images", photo_folder, "--out", tmp_path / "s.csv",
         "--sample", tmp_path / "sample.csv", "--train-csv", tmp_path / "train.csv")
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "sample.csv").read_bytes()


def test_tuning_writes_steps_and_measures_them_elsewhere(page, run_folder, dataset_path, tmp_path):
    printed = page(tune, "--run", run_folder, "--data", dataset_path, "--split", "val", "--out", tmp_path / "t.yaml")
    assert "val   GAP" in printed and "(tuned here)" in printed and "test  GAP" in printed
    page(evaluate, "--run", run_folder, "--data", dataset_path, "--answers", tmp_path / "t.yaml")


@pytest.mark.parametrize("module, words, sentence", [
    (predict, ["--index", "x"], "give --images and --out for a submission, or photos"),
    (predict, ["--index", "x", "none.jpg"], "there is none at none.jpg"),
    (predict, ["--index", "x", "none.jpg", "--sample", "s"], "--sample belongs to a submission"),
    (evaluate, ["--data", "x", "--untrained", "--ensemble", "y"], "leave out --ensemble"),
    (evaluate, ["--data", "x", "--answers", "none.yaml"], "none.yaml"),
    (tune, ["--data", "DATASET", "--out", "o", "--split", "train"], r"one with queries \(test, val\); got train"),
    (evaluate, ["--data", "DATASET", "--untrained", "--answers", THIRD], "class centres of a trained head"),
])
def test_mistakes_are_refused(page, capsys, run_folder, dataset_path, module, words, sentence):
    with pytest.raises((UserError, SystemExit, FileNotFoundError)) as refusal:
        page(module, "--run", run_folder, *(dataset_path if word == "DATASET" else word for word in words))
    if isinstance(refusal.value, SystemExit):
        assert refusal.value.code == 2
    assert re.search(sentence, f"{refusal.value} {capsys.readouterr().err}")


@pytest.mark.parametrize("answers, what", [(FIRST, "with photos without landmark"), (CANDIDATES, "photos themselves")])
def test_answers_that_need_photos_need_a_dataset(page, run_folder, dataset_path, photo_folder, answers, what):
    page(evaluate, "--run", run_folder, "--data", dataset_path)
    with pytest.raises(UserError, match=f"these answers compare {what}, but .*: give the dataset as --index"):
        page(predict, "--run", run_folder, "--index", run_folder / "embeddings" / "train",
             photo_folder / "c0test.jpg", "--answers", answers)


def test_wrong_steps_are_one_sentence_of_the_command(call, refused, run_folder, dataset_path, tmp_path):
    (tmp_path / "a.yaml").write_text("- voe")
    refused(call("evaluate.py", "--run", run_folder, "--data", dataset_path, "--answers", tmp_path / "a.yaml"),
            "a step must be one of")
