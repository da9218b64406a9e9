"""evaluate.py, tune.py and predict.py answer alike: one untrained run on the small packed dataset."""
import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import evaluate
import predict
import report
import retrieval.__main__
import tune
from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint
from arcshard.console import UserError
from arcshard.files import folder_lock
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from retrieval import Pipeline, read_pipeline
from retrieval.local_features import extract, verify
from retrieval.pictures import BOX_WIDTH, MARGIN
from retrieval.reranker import Reranker
from retrieval.run.embed import data_suffix
from retrieval.run.model import Tta, load_model
from retrieval.run.photos import load_gallery
from retrieval.run.predictor import Predictor
from retrieval.run.serve import is_loopback, load_answerer
from retrieval.steps import Search
from retrieval.web import Unreadable
from shards import Dataset
from tests.random_run import save_random_run

FIRST, SECOND, CANDIDATES, THIRD, OURS = (
    f"configs/pipelines/{name}.yaml"
    for name in ("first-place", "second-place", "second-place-candidates", "third-place", "arcshard"))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return save_random_run(tmp_path_factory.mktemp("run"), classes=6, centers=2)


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
    printed = page(evaluate, "--run", run_folder, "--data", dataset_path, "--pipeline", FIRST, "--ablate", "--gallery",
                   "--ensemble", run_folder)
    assert "without GalleryPenalty" in printed and (run_folder / "eval.json").read_bytes() == before
    name = f"first-place-with-{run_folder.name}"
    for split, queries in (("val", 18), ("test", 9)):
        assert f"{split:6}{run_folder}/gallery-{name}-{split}.html" in printed
        shown = (run_folder / f"gallery-{name}-{split}.html").read_text()
        assert shown.count("<article") == queries and shown.count("<h5>gallery_penalty</h5>") == queries
    for prefix, least in (("eval", {"gap"}), ("eval-details", {"gap_interval_95", "worst_classes"})):
        written = json.loads((run_folder / f"{prefix}-{name}.json").read_text())
        assert set(written) == {"val", "test"} and least <= set(written["test"])
    assert all(set(values) == {"gap", "gap_landmark_only", "recall@1", "map@100"}
               for values in json.loads(before).values())
    assert "probably no landmark: best score up to " in printed
    assert {f"no-landmark{suffix}.json" for suffix in ("", f"-{name}")} <= {path.name for path in run_folder.iterdir()}


@pytest.fixture(scope="module")
def judged(run_folder, dataset_path, tmp_path_factory):
    """2nd place's learned re-ranker, fitted on the small dataset."""
    out = tmp_path_factory.mktemp("judged") / "judged.yaml"
    words = f"rerank --run {run_folder} --data {dataset_path} --pipeline {CANDIDATES} --seeds 1 --out {out}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["retrieval", *words.split()])
        retrieval.__main__.main()
    return out


@pytest.mark.parametrize("answers", [None, FIRST, SECOND, THIRD, OURS, "judged"])
def test_predict_answers_as_evaluate_does(page, run_folder, dataset_path, photo_folder, tmp_path, judged, answers):
    """The same photos packed again are answered by each list as the stored test split is: accuracy from the CSV."""
    answers = judged if answers == "judged" else answers
    options = ["--pipeline", answers] if answers else []
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
    for more, sentence in ((["--splits", "train"], "--splits names train, which has no queries"),
                           (["--out", "judged.json"], r"--out is judged.json: give a name in .yaml"),
                           (["--top", "0"], "--top is 0: give at least 1")):
        with pytest.raises(UserError, match=sentence):
            page(retrieval.__main__, *words, *more)


def test_photos_on_the_screen(page, run_folder, dataset_path, photo_folder, tmp_path):
    printed = page(predict, "--run", run_folder, "--index", dataset_path, photo_folder / "c3test.jpg",
                   photo_folder / "broken.jpg", "--pipeline", FIRST, "--picture", tmp_path / "n.PNG")
    *lines, last = printed.splitlines()
    assert last == f"picture: {tmp_path}/n.PNG"
    with Image.open(tmp_path / "n.PNG") as picture:
        assert picture.format == "PNG" and picture.width == 4 * (BOX_WIDTH + MARGIN) + MARGIN
    assert "c3test.jpg" in lines[0] and lines[-1].endswith("broken.jpg: could not be read")
    scores = [float(line.split()[0]) for line in lines[1:-1]]
    assert 1 <= len(scores) <= 5 and scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("answers", [None, THIRD])
def test_a_photo_up_to_the_threshold_of_its_pipeline_probably_shows_no_landmark(page, run_folder, dataset_path,
                                                                               photo_folder, answers):
    options = ["--pipeline", answers] if answers else []
    page(evaluate, "--run", run_folder, "--data", dataset_path, *options)
    path = run_folder / f"no-landmark{'-third-place' if answers else ''}.json"
    fitted, photo = json.loads(path.read_text()), photo_folder / "c3test.jpg"

    def says(**change):
        path.write_text(json.dumps({**fitted, **change}))
        told = page(predict, "--run", run_folder, "--index", dataset_path, photo, *options).splitlines()[0]
        answer = Predictor(run_folder, dataset_path, pipeline=answers)(photo)
        assert answer.landmark and answer.probably_no_landmark == told.endswith(": probably no landmark of the gallery")
        return answer.probably_no_landmark

    assert says(score=1e9) and not says(score=-1e9)
    assert not says(score=1e9, pipeline="- another: {}")
    path.write_text(json.dumps(fitted))


def test_landmarks_are_told_by_name():
    told = predict.best_five([Path("a.jpg")], [[(4, .5), (7, .25), (-1, .125)]], {4: "99", 7: "100"},
                             {"99": "http://commons.wikimedia.org/wiki/Category:Old_Tower", "100": ""}, [False])
    assert told.splitlines() == ["a.jpg", "     0.5000  99  http://commons.wikimedia.org/wiki/Category:Old_Tower",
                                 "     0.2500  100", "     0.1250  no landmark"]


@pytest.fixture(scope="module")
def answerer(run_folder, dataset_path):
    return load_answerer([run_folder], checkpoint.NAME, str(dataset_path), read_pipeline(Path(OURS)))


def test_the_web_app_answers_as_predict_does(page, answerer, run_folder, dataset_path, photo_folder):
    photo = photo_folder / "c3test.jpg"
    printed = page(predict, "--run", run_folder, "--index", dataset_path, photo, "--pipeline", OURS)
    found = answerer.answer(photo.read_bytes())
    assert [f"{one.score:.4f} {one.landmark}" for one in found.candidates] == [
        " ".join(line.split()) for line in printed.splitlines()[1:]]
    gallery = Dataset(dataset_path, "train")
    for neighbor in found.neighbors:
        assert neighbor.id == gallery.index["key"][neighbor.row].decode()
        assert neighbor.landmark == gallery.landmark_ids[gallery.labels[neighbor.row]]
    similarities = [neighbor.similarity for neighbor in found.neighbors]
    assert similarities == sorted(similarities, reverse=True) and len(similarities) >= 5


def test_the_web_app_shows_gallery_photos_and_matches_by_row(answerer):
    photo = answerer.gallery_photo(7)
    assert photo == answerer.photos.read(7)
    assert answerer.answer(photo).neighbors[0].row == 7
    rows = [answerer.photos.labels.tolist().index(label) for label in range(6)]
    features = [extract(simplejpeg.decode_jpeg(answerer.gallery_photo(row), "RGB")) for row in rows]
    found = [answerer.match(answerer.gallery_photo(row), row) for row in rows]
    assert [one.inliers for one in found] == [len(verify(each, each)) for each in features]
    assert any(one.inliers for one in found)
    assert simplejpeg.decode_jpeg_header(found[0].picture)[:2] == (480, 2 * 640 + 8)
    for row in (-1, len(answerer.photos)):
        with pytest.raises(IndexError):
            answerer.match(photo, row)


def test_the_web_app_says_why_a_file_is_no_photo(answerer):
    for ask in (answerer.answer, lambda photo: answerer.match(photo, 0)):
        with pytest.raises(Unreadable, match="not an image"):
            ask(b"hello, I am no photo")


@pytest.mark.parametrize("words, sentence", [
    (["--pipeline", FIRST], "answered by quantile, which look at all queries together: leave them out"),
    (["--port", "65536"], "--port is 65536: give 0 to 65535"),
    (["--run", "nowhere"], "nowhere")])
def test_what_cannot_be_served_is_refused(page, run_folder, dataset_path, words, sentence):
    with pytest.raises((UserError, FileNotFoundError), match=sentence):
        page(retrieval.__main__, "serve", dataset_path, "--run", run_folder, *words)


def test_steps_and_places_that_cannot_answer_are_refused_at_the_start(page, run_folder, dataset_path):
    with pytest.raises(UserError, match="is no dataset, and the app shows"):
        load_answerer([run_folder], checkpoint.NAME, str(run_folder / "checkpoint.pt"), Pipeline())
    with pytest.raises(UserError, match="the pipeline cannot answer: the steps find no answers"):
        load_answerer([run_folder], checkpoint.NAME, str(dataset_path), Pipeline((Search(5),)))


def test_only_an_address_of_this_machine_is_loopback():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.0.7", "example.org")] == [False] * 4


@pytest.mark.parametrize("host, warned", [("127.0.0.1", False), ("0.0.0.0", True)])
def test_serving_others_is_warned_of(page, monkeypatch, answerer, run_folder, dataset_path, host, warned):
    monkeypatch.setattr("retrieval.run.serve.load_answerer", lambda *_: answerer)
    served = []
    monkeypatch.setattr("retrieval.web.server.serve",
                        lambda app, *place: served.append((app.config["TRUSTED_HOSTS"], place)))
    printed = page(retrieval.__main__, "serve", dataset_path, "--run", run_folder, "--host", host)
    assert served == [(None if warned else [host, "localhost"], (host, 8000))]
    assert printed.startswith("warning: whoever reaches 0.0.0.0 can ask this server") == warned


def test_the_public_train_set_copies_the_sample(page, run_folder, photo_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.submission.PUBLIC_TRAIN", 1)
    (tmp_path / "train.csv").write_text("id,landmark_id\na,1\n")
    (tmp_path / "sample.csv").write_text("id,landmarks\nz,5 0.1\n")
    page(predict, "--run", run_folder, "--index", "never/read", "--images", photo_folder, "--out", tmp_path / "s.csv",
         "--sample", tmp_path / "sample.csv", "--train-csv", tmp_path / "train.csv")
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "sample.csv").read_bytes()


def test_tuning_writes_steps_and_measures_them_elsewhere(page, run_folder, dataset_path, tmp_path):
    printed = page(tune, "--run", run_folder, "--data", dataset_path, "--split", "val", "--out",
                   tmp_path / "new" / "t.yaml")
    assert "val   GAP" in printed and "(tuned here)" in printed and "test  GAP" in printed
    page(evaluate, "--run", run_folder, "--data", dataset_path, "--pipeline", tmp_path / "new" / "t.yaml")


def test_lists_are_compared_on_val_and_half_of_the_photos_without_landmark(page, run_folder, dataset_path, tmp_path):
    printed = page(tune, "--run", run_folder, "--data", dataset_path, "--against", FIRST, THIRD, "--non-landmarks",
                   "--passes", 0, "--out", tmp_path / "best.yaml").splitlines()
    values = {line.split()[2]: line.split()[1] for line in printed if line.startswith("GAP ")}
    assert set(values) == {"five", str(FIRST), str(THIRD)} and list(values.values()) == sorted(values.values())[::-1]
    best = max(values.values())
    assert f"tuned  GAP {best} -> {best} (20 queries)" in printed and re.match("others GAP .* .7 queries", printed[-1])
    assert read_pipeline(tmp_path / "best.yaml") in (Pipeline(), *map(read_pipeline, map(Path, (FIRST, THIRD))))


@pytest.mark.parametrize("module, words, sentence", [
    (predict, ["--index", "x"], "give --images and --out for a submission, or photos"),
    (predict, ["--index", "x", "none.jpg"], "there is no file none.jpg"),
    (predict, ["--index", "x", "none.jpg", "--sample", "s"], "--sample belongs to a submission"),
    (predict, ["--index", "x", "a.jpg", "--picture", "n.gif"], "--picture belongs to.*ends in .jpg, .jpeg, .png"),
    (predict, ["--index", "x", "--images", "d", "--out", "s", "--picture", "n.jpg"], "--picture belongs to photos"),
    (evaluate, ["--data", "x", "--untrained", "--ensemble", "y"], "leave out --ensemble"),
    (evaluate, ["--data", "x", "--pipeline", "none.yaml"], "none.yaml"),
    (evaluate, ["--data", "x", "--false-answers", "1"], "--false-answers is 1.0: give a share"),
    (evaluate, ["--data", "x", "--answers", "a.yaml"], "--answers is now --pipeline"),
    (predict, ["--index", "x", "--answers", "a.yaml"], "--answers is now --pipeline"),
    (tune, ["--data", "DATASET", "--out", "o", "--split", "train"], "--split train has no queries"),
    (evaluate, ["--data", "DATASET", "--untrained", "--pipeline", THIRD], "class centers of a trained head"),
])
def test_mistakes_are_refused(page, capsys, run_folder, dataset_path, module, words, sentence):
    with pytest.raises((UserError, SystemExit, FileNotFoundError)) as refusal:
        page(module, "--run", run_folder, *(dataset_path if word == "DATASET" else word for word in words))
    if isinstance(refusal.value, SystemExit):
        assert refusal.value.code == 2
    assert re.search(sentence, f"{refusal.value} {capsys.readouterr().err}")


def test_a_picture_needs_the_gallerys_photos(page, run_folder, dataset_path, photo_folder):
    page(evaluate, "--run", run_folder, "--data", dataset_path)
    with pytest.raises(UserError, match="a store of embeddings, but a picture shows .*: give the dataset as --index"):
        page(predict, "--run", run_folder, "--index", run_folder / "embeddings" / "train",
             photo_folder / "c0test.jpg", "--picture", "n.jpg")


@pytest.mark.parametrize("answers, what", [(FIRST, "with photos without landmark"), (CANDIDATES, "photos themselves")])
def test_answers_that_need_photos_need_a_dataset(page, run_folder, dataset_path, photo_folder, answers, what):
    page(evaluate, "--run", run_folder, "--data", dataset_path)
    with pytest.raises(UserError, match=f"embeddings only, but this pipeline compares {what}: give the dataset"):
        page(predict, "--run", run_folder, "--index", run_folder / "embeddings" / "train",
             photo_folder / "c0test.jpg", "--pipeline", answers)


@pytest.mark.parametrize("splits", [["train"], ["train", "val"]])
def test_a_gallery_alone_has_nothing_for_steps_that_compare_with_non_landmarks(page, run_folder, photos, photo_folder,
                                                                               tmp_path, splits):
    rows = photos[1]
    pack(rows[rows["split"].isin(splits)], [photos[0]], tmp_path / "d", PackOptions(), Engine())
    words = "--run", run_folder, "--index", tmp_path / "d", photo_folder / "c3test.jpg"
    assert "c3test.jpg" in page(predict, *words)
    with pytest.raises(UserError, match="d has no photo without landmark in a val or test split, but steps"):
        page(predict, *words, "--pipeline", FIRST)


@pytest.fixture
def trained(call, dataset_path, tmp_path):
    """A run of train.py that draws from a mixture, whose own data are those of --data all the same."""
    run = tmp_path / "run"
    done = call("train.py", "--data", dataset_path, "--out", run, "--model.backbone", "test_resnet", "--model.weights",
                "none", "--model.dim", 16, "--train.size", 32, "--train.global_batch", 45, "--train.epochs", 1,
                "--select.mix", json.dumps({str(dataset_path): 0.5}))
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def other_data(photos, tmp_path):
    """Half of the train photos, with other landmark ids."""
    rows = photos[1].copy()
    rows["landmark_id"] = rows["landmark_id"].where(rows["label"] < 0, "9" + rows["landmark_id"])
    pack(rows[(rows["split"] != "train") | rows["id"].str.contains("n0[0-4]")], [photos[0]], tmp_path / "other",
         PackOptions(), Engine())
    return tmp_path / "other"


def test_other_data_replace_nothing_of_the_runs_own(page, trained, dataset_path, other_data):
    def about(data):
        printed = page(evaluate, "--run", trained, "--data", data)
        page(retrieval.__main__, "embed", "--run", trained, "--data", data, "--splits", "val", "--tta", "flip")
        page(report, "--run", trained, "--data", data)
        return printed

    def files():
        return {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}

    assert "other data" not in about(dataset_path)
    own = files()
    suffix = f"-other-{Dataset(other_data).fingerprint[:8]}"
    assert f"{trained} was trained on other data: these figures are in {trained}/eval{suffix}.json" in about(other_data)
    after = files()
    assert {path: after[path] for path in own} == own
    assert {path.name for path in trained.iterdir()} - {path.relative_to(trained).parts[0] for path in own} == {
        f"eval{suffix}.json", f"eval-details{suffix}.json", f"no-landmark{suffix}.json", f"report{suffix}.html",
        f".eval{suffix}.lock"}
    model = load_model(trained)
    for data, folder in ((dataset_path, "."), (other_data, suffix[1:])):
        stores = {path.name for path in (trained / "embeddings" / folder).iterdir()}
        assert stores >= {"train", "val", "test", "val.flip"}
        gallery = load_gallery(model, str(data), trained)
        assert isinstance(gallery.vectors, np.memmap), "predict.py reads what evaluate.py stored"
        assert gallery.provenance.dataset == Dataset(data).fingerprint


def test_a_run_of_an_older_version_knows_its_data_by_the_loader(dataset_path):
    config = {"train": {}}
    assert Checkpoint(config, loader={"fingerprint": {"dataset": "a"}}).trained_on == "a"
    assert Checkpoint(config, loader={"fingerprint": {"dataset": "joined", "mix": [0.5]}}).trained_on is None
    assert data_suffix(None, Dataset(dataset_path)) == ""


def test_another_size_is_said_and_has_files_of_its_own(page, run_folder, dataset_path, photo_folder):
    words = "--run", run_folder, "--data", dataset_path
    assert page(evaluate, *words).startswith(f"{run_folder}: 48 pixels\n")
    before = (run_folder / "eval.json").read_bytes()
    printed = page(evaluate, *words, "--size", "64", "--ensemble", run_folder)
    assert printed.startswith(2 * f"{run_folder}: 64 pixels, trained at 48\n")
    details = json.loads((run_folder / f"eval-details-64px-with-{run_folder.name}.json").read_text())
    assert details["val"]["sizes"] == [64, 64] and (run_folder / "eval.json").read_bytes() == before
    photo = photo_folder / "c3test.jpg"
    answers = [page(predict, "--run", run_folder, "--index", index, photo, *more) for index, more in (
        (dataset_path, ["--size", 64]), (run_folder / "embeddings/train.64px", ["--size", 64]), (dataset_path, []))]
    assert answers[0] == answers[1] != answers[2]
    page(evaluate, *words, "--untrained", "--size", "64")
    assert (run_folder / "eval-untrained-64px.json").is_file()


def test_the_web_app_takes_size_and_views(page, run_folder, dataset_path, photo_folder):
    photo, words = photo_folder / "c3test.jpg", ("--size", "64", "--tta", "flip")
    printed = page(predict, "--run", run_folder, "--index", dataset_path, photo, *words)
    answerer = load_answerer([run_folder], checkpoint.NAME, str(dataset_path), Pipeline(), Tta(True, (), 64))
    assert [f"{one.score:.4f} {one.landmark}" for one in answerer.answer(photo.read_bytes()).candidates] == [
        " ".join(line.split()) for line in printed.splitlines()[1:]]


def test_a_second_evaluation_that_would_write_the_same_files_is_refused(page, run_folder, dataset_path):
    words = "--run", run_folder, "--data", dataset_path
    page(evaluate, *words)
    with folder_lock(run_folder / ".eval.lock"):
        with pytest.raises(UserError, match="eval.lock is locked: another process writes"):
            page(evaluate, *words)
        page(evaluate, *words, "--tta", "flip")


def test_wrong_steps_are_one_sentence(page, run_folder, dataset_path, tmp_path):
    (tmp_path / "a.yaml").write_text("- voe")
    with pytest.raises(UserError, match="a.yaml: .* is no step: give one of"):
        page(evaluate, "--run", run_folder, "--data", dataset_path, "--pipeline", tmp_path / "a.yaml")
