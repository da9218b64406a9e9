"""The figures by which train.best may choose: those of evaluate.py on a sample that stays the same."""
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import Pipeline, evaluate
from retrieval.run.model import load_model
from retrieval.run.queries import open_queries
from retrieval.steps import Search, Vote
from training.nearest_photo import first_of_classes, spread


def test_the_figures_are_those_of_evaluate(call, dataset_path, tmp_path):
    done = call("train.py", "--data", dataset_path, "--out", tmp_path / "run", "--model.backbone", "test_efficientnet",
                "--model.weights", "none", "--model.dim", "16", "--train.size", "32", "--train.global_batch", "20",
                "--train.epochs", "1", "--train.best", "val_photo_gap")
    assert done.returncode == 0, done.stderr
    line = json.loads((tmp_path / "run" / "validation.jsonl").read_text().splitlines()[-1])
    assert (tmp_path / "run" / "checkpoint-best.pt").is_file()
    model = load_model(tmp_path / "run")
    queries = open_queries([model], str(dataset_path), [None]).sets["val"]
    found = evaluate(queries, Pipeline((Search(1), Vote(1, 1.0)))).metrics
    assert line["val_photo_recall@1"] == pytest.approx(found["recall@1"])
    assert line["val_photo_gap"] == pytest.approx(found["gap"])


@given(st.lists(st.integers(-1, 9), max_size=60), st.sets(st.integers(-1, 9)), st.integers(1, 30))
def test_a_sample_shows_each_landmark_before_any_twice(labels, classes, most):
    labels = np.array(labels, np.int32)
    rows = first_of_classes(labels, np.array(sorted(classes), np.int32), most)
    wanted = np.flatnonzero(np.isin(labels, sorted(classes - {-1})))
    assert len(rows) == min(most, len(wanted)) and set(rows) <= set(wanted) and (np.diff(rows) > 0).all()
    counts = {label: (labels[rows] == label).sum() for label in set(labels[wanted].tolist())}
    for label, count in counts.items():
        assert count >= min(max(counts.values()) - 1, (labels == label).sum())


@given(st.integers(0, 500), st.integers(1, 100))
def test_a_sample_is_spread_over_the_split(count, most):
    rows = spread(count, most)
    assert len(rows) == min(count, most) and (np.diff(rows) > 0).all()
    assert not count or (rows[0] == 0 and rows[-1] in (count - 1, 0))
