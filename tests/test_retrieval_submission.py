"""The submission that retrieval writes, as Kaggle reads it."""
import csv
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcshard.console import UserError
from retrieval import write_submission


def read_submission(path):
    with open(path, newline="") as f:
        return [(row["id"], row["landmarks"]) for row in csv.DictReader(f)]


def test_submission_reads_back(tmp_path):
    write_submission(tmp_path / "s.csv", ["x", "y", "z"], ["203", "", "7"], np.array([0.5, 0.9, 1.0]))
    assert (tmp_path / "s.csv").read_text() == "id,landmarks\nx,203 0.5\ny,\nz,7 1.0\n"
    assert read_submission(tmp_path / "s.csv") == [("x", "203 0.5"), ("y", ""), ("z", "7 1.0")]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20),
       st.sampled_from([np.float64, np.float32]))
def test_scores_survive_writing(tmp_path_factory, scores, dtype):
    """Each reads back equal and without exponent, subnormal numbers and 1e308 included."""
    limit = np.finfo(dtype).max
    scores = np.clip(scores, -limit, limit).astype(dtype)
    path = tmp_path_factory.mktemp("scores") / "s.csv"
    write_submission(path, [str(i) for i in range(len(scores))], ["5"] * len(scores), scores)
    written = [landmarks.split(" ") for _, landmarks in read_submission(path)]
    assert all(name == "5" and re.fullmatch(r"-?\d+\.\d+", score) for name, score in written)
    assert np.array_equal(np.array([score for _, score in written]).astype(dtype), scores)


def test_an_id_twice_is_refused(tmp_path):
    with pytest.raises(UserError, match="2 images have the id x, .*: rename or remove all but one"):
        write_submission(tmp_path / "s.csv", ["x", "y", "x"], ["1", "2", "3"], [1.0, 1.0, 1.0])
    assert list(tmp_path.iterdir()) == []


def test_a_landmark_id_with_a_space_is_refused(tmp_path):
    with pytest.raises(UserError, match="the landmark id 'Big Ben' .1 such ids.*not one word.*rename it"):
        write_submission(tmp_path / "s.csv", ["x", "y", "z"], ["Big Ben", "", "Big Ben"], [1.0] * 3)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_without_rank_is_refused(tmp_path, score):
    with pytest.raises(ValueError, match="landmark 203 is (nan|inf): give a finite one"):
        write_submission(tmp_path / "s.csv", ["x"], ["203"], [score])
    write_submission(tmp_path / "s.csv", ["x"], [""], [score])
    assert read_submission(tmp_path / "s.csv") == [("x", "")]


def test_no_queries_make_a_header(tmp_path):
    write_submission(tmp_path / "s.csv", [], [], [])
    assert (tmp_path / "s.csv").read_text() == "id,landmarks\n"
