"""report.py on a packed dataset and a run whose embeddings are made up: what it reads and refuses."""
import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint
from arcshard.console import UserError
from loader import View
from report import collect, main
from retrieval import Embeddings
from retrieval.store import Provenance
from shards import Dataset


@pytest.fixture
def finished_run(dataset_path, tmp_path):
    """A folder as train.py and evaluate.py leave it; embeddings are the axes of their labels."""
    out = tmp_path / "demo"
    (out / "embeddings").mkdir(parents=True)
    checkpoint.save(out, Checkpoint({"train": {"size": 40, "seed": 3}, "view": asdict(View(brightness=.4))}))
    for split in ("train", "test"):
        ds = Dataset(dataset_path, split)
        labels = ds.labels.astype(np.int64)
        names = [ds.landmark_ids[label] if label >= 0 else "" for label in labels]
        vectors = np.eye(ds.num_classes + 1, dtype=np.float32)[labels]  # no landmark: the last axis
        stored = Embeddings(vectors, [key.decode() for key in ds.index["key"]], labels, names,
                            Provenance(checkpoint.fingerprint(out), ds.fingerprint, split))
        stored.save(out / "embeddings" / split)
    (out / "eval.json").write_text(json.dumps({"val": {"gap": .5}, "test": {"gap": .4}}))
    (out / "metrics.jsonl").write_text('{"position": 64, "loss": 3.5}\n')
    return out


def test_collects_the_run_and_its_dataset(finished_run, dataset_path):
    data = collect(finished_run, dataset_path)
    assert (data.run, data.packed, data.rejected, data.split) == ("demo", 87, 0, "test")
    assert (data.untrained, data.trained["test"]) == ({}, {"gap": .4})
    assert data.metrics == [{"position": 64, "loss": 3.5}]
    assert (data.views.shape, data.views.dtype) == ((32, 40, 40, 3), np.uint8)
    assert len(np.unique(data.views)) > 200  # all of 0 to 255, not a scale of 0 to 1
    groups = {heading: len(queries) for heading, queries in data.queries.items()}
    assert groups == {"Without landmark, and most confident": 3, "Right, and least confident": 6}
    for query in data.queries["Right, and least confident"]:
        assert [(found.landmark, found.cosine) for found in query.neighbors] == [(query.landmark, 1.0)] * 5


def test_figures_on_other_data_stand_beside_its_own(finished_run, dataset_path):
    for name, gap in (("eval-unseen-0123abcd", .3), ("eval-unseen-0123abcd-untrained", .2), ("eval-flip", .9),
                      ("eval-details-unseen-0123abcd", .8)):
        (finished_run / f"{name}.json").write_text(json.dumps({"test": {"gap": gap}}))
    data = collect(finished_run, dataset_path)
    assert data.split == "test" and list(data.trained) == ["val", "test", "unseen test"]
    assert (data.untrained, data.trained["unseen test"]) == ({"unseen test": {"gap": .2}}, {"gap": .3})


def test_a_query_is_shown_with_its_own_photo(finished_run, dataset_path):
    photos = Dataset(dataset_path, "test")
    keys = [key.decode() for key in photos.index["key"]]
    shown = {query.key: query.photo for queries in collect(finished_run, dataset_path).queries.values()
             for query in queries}
    assert shown == {key: photos.read(keys.index(key)) for key in shown} and len(shown) == 9


def test_cosines_to_right_and_wrong_neighbors_are_apart(finished_run, dataset_path):
    """Embeddings are the axes of their labels: 1 to each photo of the landmark, 0 to all others."""
    cosines = collect(finished_run, dataset_path).cosines
    assert {label: values.tolist() for label, values in cosines.items()} == {
        "own landmark": [1] * 6, "another": [0] * 6, "no landmark": [0] * 3}


def test_embeddings_of_another_checkpoint_are_refused(finished_run, dataset_path):
    path = finished_run / "embeddings" / "train"
    stored = Embeddings.load(path)
    replace(stored, provenance=replace(stored.provenance, model="other")).save(path)
    with pytest.raises(UserError, match="train is of another checkpoint, or of other photos"):
        collect(finished_run, dataset_path)


def test_a_run_that_was_never_evaluated_is_refused(finished_run, dataset_path):
    (finished_run / "eval.json").unlink()
    with pytest.raises(UserError, match="has no eval.json: run evaluate.py first"):
        collect(finished_run, dataset_path)


def test_writes_one_file(finished_run, dataset_path, monkeypatch, capsys):
    before = set(finished_run.iterdir())
    monkeypatch.setattr("sys.argv", ["report.py", "--run", str(finished_run), "--data", str(dataset_path)])
    main()
    assert set(finished_run.iterdir()) - before == {finished_run / "report.html"}
    assert "<h1>Run demo</h1>" in (finished_run / "report.html").read_text()
    assert re.search(r"photos packed +87\n", capsys.readouterr().out)


def test_no_such_run_is_one_sentence(dataset_path, tmp_path):
    with pytest.raises(UserError, match="has no checkpoint.pt"):
        collect(tmp_path / "none", dataset_path)
