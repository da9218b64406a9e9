"""The command benchmark: photos in their own shape, embedded as papers do, and figures that plain loops find too."""
import json
import pickle

import numpy as np
import pytest
import simplejpeg
import torch
import yaml

import retrieval.__main__ as command
from arcshard.console import UserError
from retrieval import Embeddings, Vectors, map_at_k
from retrieval.benchmarks import revisited
from retrieval.run.benchmark import lookup, rankings, take
from retrieval.run.model import Tta, load_model
from retrieval.run.own_shape import embed, in_own_shape, open_photos, views_of_photo
from retrieval.state import Neighbors, State
from retrieval.store import Provenance
from retrieval.whitening import fit_whitening
from shards import Dataset
from tests.random_run import save_random_run

SMALL = ("--size", 64, "--tta", "0.7071")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return save_random_run(tmp_path_factory.mktemp("runs"), classes=6, dim=24)


@pytest.fixture
def benchmark(monkeypatch, capsys):
    """Run the command here; returns the JSON that it wrote and the row that it printed."""
    def call_command(name, *words, out):
        monkeypatch.setattr("sys.argv", ["retrieval", "benchmark", name, *map(str, words), "--out", str(out)])
        command.main()
        return json.loads(out.read_text()), capsys.readouterr().out.splitlines()[2]
    return call_command


def cosines(folder):
    """Of the stores that the command left: (Q, N) float64, and the keys of both."""
    queries, gallery = (Embeddings.load(next(folder.glob(f"{what}*"))) for what in ("queries", "gallery"))
    return queries.vectors.astype(np.float64) @ gallery.vectors.T, queries.keys, gallery.keys


# Photos.


def test_photos_keep_their_shape_and_are_scaled_up_only_by_scales(make_photo):
    data = make_photo(0, 0)  # 200 × 150
    assert [view.shape for view in views_of_photo(data, 100, Tta(scales=(0.5, 1.5)))] == [
        (75, 100, 3), (38, 50, 3), (112, 150, 3)]
    whole = simplejpeg.decode_jpeg(data, "RGB")
    same, larger = views_of_photo(data, 1024, Tta(scales=(1.5,)))
    np.testing.assert_array_equal(same, whole)
    assert larger.shape == (225, 300, 3)
    assert [view.shape for view in views_of_photo(data, 100, Tta(), multiple=16)] == [(80, 96, 3)]
    cut, = views_of_photo(data, 1024, Tta(), np.array([10.4, 20.0, 110.6, 90.0]))  # as Pillow's crop rounds
    np.testing.assert_array_equal(cut, whole[20:90, 10:111])


def test_an_embedding_is_the_mean_of_its_views_and_their_mirror_images(run_folder, make_photo):
    tta = Tta(True, (0.5,), 64)
    model, data = load_model(run_folder, tta=tta), make_photo(1, 2)
    with torch.inference_mode():
        each = [model.embedder(torch.from_numpy(np.ascontiguousarray(image))[None])[0].double().numpy()
                for view in views_of_photo(data, 64, tta) for image in (view, view[:, ::-1])]
    mean = np.mean([one / np.linalg.norm(one) for one in each], axis=0)
    np.testing.assert_allclose(embed(model, views_of_photo(data, 64, tta))[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_a_network_of_one_shape_is_refused(run_folder, monkeypatch):
    model = load_model(run_folder)
    monkeypatch.setattr(model.embedder.backbone, "forward", lambda images: images[:, :, :, :64].reshape(1, 3, 64, 64))
    with pytest.raises(UserError, match="images of one shape only"):
        in_own_shape(model, run_folder, Tta(size=64))


def test_photos_come_from_folders_and_splits(photos, dataset_path, tmp_path, make_photo):
    folder = open_photos(str(photos[0]))
    assert folder.keys == sorted(photos[1]["id"])
    split, dataset = open_photos(f"{dataset_path}:test"), Dataset(dataset_path, "test")
    assert (len(split.keys), split.read(3)) == (9, dataset.read(3))
    for name in ("a/1.jpg", "b/1.JPG", "b/2.png"):  # a name occurs twice
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(make_photo(0, 0))
    (tmp_path / "notes.txt").touch()
    assert open_photos(str(tmp_path)).keys == ["a/1", "b/1", "b/2"]
    with pytest.raises(UserError, match="splits train, val, test|splits test, train, val"):
        open_photos(str(dataset_path))
    with pytest.raises(UserError, match="neither a folder"):
        open_photos(str(tmp_path / "none"))


def test_names_are_found_with_and_without_folder_and_ending():
    rows = lookup(["a", "b/c", "d.e"], "it lacks")
    assert rows(["x/a.jpg", "b/c", "d.e", "b/c.JPEG"]).tolist() == [0, 1, 2, 1]
    with pytest.raises(UserError, match="lacks: 2 of them, first z"):
        rows(["a", "z", "c"])
    one = Embeddings(np.ones((1, 1), np.float32), ["a"], np.zeros(1, np.int64), [""], Provenance("m", "d", "train"))
    with pytest.raises(UserError, match="the photo a 2 times"):
        take(one, ["a", "a.jpg"], "")


# Benchmarks.


@pytest.fixture(scope="module")
def oxford(photos, tmp_path_factory):
    """Truth as gnd_roxford5k.pkl holds it: the val photos of three classes ask for their train photos."""
    table, path = photos[1], tmp_path_factory.mktemp("oxford") / "gnd.pkl"
    gallery = table[table["split"] == "train"]["id"].tolist()[::-1]
    gnd = []
    for label in range(3):
        rows = [row for row, name in enumerate(gallery) if name.startswith(f"c{label}")]
        gnd.append({"bbx": [20.0, 10.0, 160.0, 130.0], "easy": np.array(rows[:3]), "hard": rows[3:7], "junk": rows[7:]})
    truth = {"imlist": gallery, "qimlist": [f"c{label}n11" for label in range(3)], "gnd": gnd}
    path.write_bytes(pickle.dumps(truth, 2))
    return path, truth


def test_revisited_oxford_from_a_folder(benchmark, run_folder, photos, oxford, tmp_path):
    words = ("roxford5k", "--run", run_folder, "--truth", oxford[0], "--gallery", photos[0], *SMALL)
    report, row = benchmark(*words, out=tmp_path / "r.json")
    products, queries, gallery = cosines(run_folder / "embeddings/benchmarks/roxford5k")
    assert (queries, gallery) == (oxford[1]["qimlist"], oxford[1]["imlist"])
    expected = revisited(np.argsort(-products.T, axis=0, kind="stable"), oxford[1]["gnd"])
    assert {setup: pytest.approx(values) for setup, values in expected.items()} == report["results"]
    assert (report["queries"], report["size"], report["scales"], report["dim"], report["gallery"]) == (
        "cropped", 64, "1,0.7071", 24, 60)
    assert row.startswith(f"| roxford5k | {run_folder.name} | 64 | own | 1,0.7071 | cropped | none | 24 | none | 60 |")
    assert f"{100 * expected['medium']['map']:.2f}" in row

    whole, _ = benchmark(*words, "--uncropped", out=tmp_path / "u.json")
    assert whole["queries"] == "whole" and whole["results"] != report["results"]
    more, row = benchmark(*words, "--distractors", photos[0], out=tmp_path / "d.json")  # the queries are among them
    assert f"| 60 + {len(photos[1])} |" in row and more["results"]["hard"]["map"] < report["results"]["hard"]["map"]


def test_whitening_is_learned_from_the_train_split(benchmark, run_folder, photos, oxford, dataset_path, tmp_path):
    words = ("roxford5k", "--run", run_folder, "--truth", oxford[0], "--gallery", photos[0], *SMALL)
    report, _ = benchmark(*words, "--whiten", f"{dataset_path}:train", "--dim", 5, out=tmp_path / "r.json")
    assert (report["whitening"], report["dim"]) == ("dataset:train", 5)
    folder = run_folder / "embeddings/benchmarks/roxford5k"
    by = fit_whitening(Embeddings.load(next(folder.glob("whitening*"))).vectors, 5)
    queries, gallery = (by.apply(Embeddings.load(next(folder.glob(f"{what}*cropped" if what == "queries" else
                                                                  f"{what}*"))).vectors)
                        for what in ("queries", "gallery"))
    expected = revisited(np.argsort(-(gallery @ queries.T), axis=0, kind="stable"), oxford[1]["gnd"])
    assert report["results"]["medium"] == pytest.approx(expected["medium"])
    by.save(tmp_path / "w.npy")
    again, _ = benchmark(*words, "--whiten", tmp_path / "w.npy", out=tmp_path / "r.json")
    assert again["results"] == report["results"]


def test_google_landmarks_from_stores_alone(benchmark, run_folder, dataset_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["retrieval", "embed", "--run", str(run_folder), "--data", str(dataset_path),
                                     "--out", str(tmp_path / "e")])
    command.main()
    capsys.readouterr()
    queries, gallery = (Embeddings.load(tmp_path / "e" / run_folder.name / split) for split in ("test", "train"))
    stores = ("--queries", tmp_path / "e" / run_folder.name / "test",
              "--gallery", tmp_path / "e" / run_folder.name / "train")
    parts = dict(zip(queries.keys, ["Public", "Private"] * 4 + ["Ignored"]))
    (tmp_path / "retrieval.csv").write_text("id,images,Usage\n" + "".join(
        f"{key},{' '.join(k for k, own in zip(gallery.keys, gallery.labels) if own == label)},{parts[key]}\n"
        for key, label in zip(queries.keys, queries.labels) if label >= 0))
    found, row = benchmark("gldv2-retrieval", "--truth", tmp_path / "retrieval.csv", *stores, out=tmp_path / "r.json")
    ranked = gallery.labels[np.argsort(-(queries.vectors @ gallery.vectors.T), axis=1, kind="stable")]
    for part in ("Public", "Private"):
        rows = [q for q, key in enumerate(queries.keys) if parts[key] == part and queries.labels[q] >= 0]
        expected = map_at_k(ranked[rows], [{int(queries.labels[q])} for q in rows], [10] * len(rows))
        assert found["results"][part.lower()]["map@100"] == pytest.approx(expected)
    assert "as stored" in row and (found["size"], found["shape"]) == (48, "square")

    (tmp_path / "recognition.csv").write_text("id,landmarks,Usage\n" + "".join(
        f"{key},{own},{parts[key]}\n" for key, own in zip(queries.keys, queries.landmark_ids)))
    (tmp_path / "nearest.yaml").write_text(yaml.safe_dump([{"search": {"k": 1}}, {"vote": {"power": 1.0}}]))
    found, _ = benchmark("gldv2-recognition", "--truth", tmp_path / "recognition.csv", *stores, "--pipeline",
                         tmp_path / "nearest.yaml", out=tmp_path / "g.json")
    best = (queries.vectors @ gallery.vectors.T).max(axis=1)
    for part in ("Public", "Private"):
        rows = sorted((q for q, key in enumerate(queries.keys) if parts[key] == part), key=lambda q: -best[q])
        right = [bool(queries.labels[q] == ranked[q, 0]) for q in rows]
        total = sum(sum(right[:i + 1]) / (i + 1) for i, hit in enumerate(right) if hit)
        assert found["results"][part.lower()]["gap"] == pytest.approx(total / sum(queries.labels[rows] >= 0))


def test_a_table_of_ones_own(benchmark, run_folder, photos, tmp_path):
    """Queries that are in the gallery themselves never find themselves."""
    names = sorted(photos[1]["id"])
    right = {name: [other for other in names if other[:3] == name[:3]] for name in ("c0n00", "c3n05", "c5n12")}
    (tmp_path / "t.csv").write_text("query,relevant,junk\n" + "".join(
        f"{name}.jpg,{' '.join(other)},{name[:2]}test\n" for name, other in right.items()) + "c6none,,\n")
    found, _ = benchmark("csv", "--run", run_folder, "--truth", tmp_path / "t.csv", "--gallery", photos[0], *SMALL,
                         out=tmp_path / "r.json")
    products, queries, gallery = cosines(run_folder / "embeddings/benchmarks/csv")
    assert queries == [*right, "c6none"]
    first, scores = [], []
    for q, name in enumerate(queries):
        order = [gallery[row] for row in np.argsort(-products[q], kind="stable")
                 if gallery[row] not in (name, f"{name[:2]}test" if q < 3 else "")]
        first.append(q < 3 and order[0] in right[name])
        scores.append(products[q, gallery.index(order[0])])
    hits = [first[q] for q in np.argsort(-np.array(scores))]
    assert found["results"]["all"]["mp@1"] == pytest.approx(sum(first) / 3)
    assert found["results"]["all"]["gap"] == pytest.approx(
        sum(sum(hits[:i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit) / 3)


def test_the_lists_of_steps_come_before_all_other_photos():
    gallery = np.eye(4, dtype=np.float32)
    vectors = Vectors(np.array([[.1, .4, .3, .2]], np.float32), gallery)
    listed = Neighbors(np.array([[.9, .8, -np.inf]], np.float32), np.array([[3, 0, 1]]))
    (plain, _), = rankings(State((vectors,), np.zeros(4, np.int64)))
    (first, _), = rankings(State((vectors,), np.zeros(4, np.int64), neighbors=(listed,)))
    assert (plain.tolist(), first.tolist()) == ([1, 2, 3, 0], [3, 0, 1, 2])


@pytest.mark.parametrize(("name", "words", "reason"), [
    ("gldv2-retrieval", ["--gallery", "photos"], "give --queries"),
    ("gldv2-recognition", ["--gallery", "photos", "--queries", "photos"], "photos has none of the 1 landmarks"),
    ("csv", ["--gallery", "photos", "--uncropped"], "have boxes"),
    ("csv", ["--gallery", "photos", "--dim", "3"], "without --whiten"),
    ("csv", ["--gallery", "nowhere"], "neither a folder"),
    ("csv", ["--gallery", "photos", "--whiten", "none.npy"], "none.npy cannot be read"),
    ("csv", ["--gallery", "photos", "--size", "0"], "at least 1"),
    ("csv", ["--gallery", "data:test"], "lacks queries of t.csv: 1 of them, first c0n00"),
    ("csv", ["--gallery", "data:test", "--queries", "photos"], "calls relevant or junk: 1 of them, first c0n01"),
])
def test_mistakes_are_refused(name, words, reason, call, refused, run_folder, photos, dataset_path, tmp_path):
    header = {"csv": "query,relevant,junk", "gldv2-retrieval": "id,images,Usage"}.get(name, "id,landmarks,Usage")
    (tmp_path / "t.csv").write_text(f"{header}\nc0n00,c0n01,{'' if name == 'csv' else 'Public'}\n")
    (tmp_path / "photos").symlink_to(photos[0])
    (tmp_path / "data").symlink_to(dataset_path)
    refused(call("-m", "retrieval", "benchmark", name, "--run", run_folder, "--truth", "t.csv", *words, cwd=tmp_path),
            reason)
