"""The threshold for "probably no landmark": fitted on half of the photos without one, measured on the other."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import Pipeline
from retrieval.evaluation import folds
from retrieval.no_landmark import Threshold, fit_threshold, load_threshold, save_threshold, verdict
from retrieval.steps import Search, Vote
from retrieval.store import Provenance

SCORES = st.floats(-5, 5) | st.just(-np.inf)


@given(st.lists(st.tuples(SCORES, st.integers(-1, 2), st.sets(st.integers(0, 2), max_size=1)), min_size=1, max_size=40),
       st.sampled_from([0.0, 0.05, 0.25, 0.5]))
def test_a_threshold_is_the_least_that_keeps_its_share_on_one_half_and_is_measured_on_the_other(queries, share):
    scores, labels, truths = (list(side) for side in zip(*queries))
    keys = [f"q{i}" for i in range(len(queries))]
    half = folds(keys)
    found = fit_threshold(labels, scores, truths, keys, share)
    answered = [score if label >= 0 else -np.inf for score, label in zip(scores, labels)]
    none = [[s for s, truth, h in zip(answered, truths, half) if not truth and h == side] for side in (0, 1)]
    if not none[0]:
        assert found is None
        return
    assert sum(s > found.score for s in none[0]) <= share * len(none[0])
    lower = [s for s in none[0] if s < found.score]
    assert not lower or sum(s > max(lower) for s in none[0]) > share * len(none[0])
    assert (found.fitted_on, found.measured_on) == (len(none[0]), len(none[1]))
    assert found.measured * len(none[1]) == pytest.approx(sum(s > found.score for s in none[1]))
    right = [s for s, label, truth in zip(answered, labels, truths) if label in truth]
    assert found.landmarks == sum(map(bool, truths))
    assert found.right_before * found.landmarks == pytest.approx(len(right))
    assert found.right * found.landmarks == pytest.approx(sum(s > found.score for s in right))


def test_a_best_candidate_at_the_threshold_or_none_is_no_landmark():
    assert verdict([-np.inf, 0.4, 0.5, 0.6], 0.5).tolist() == [True, True, True, False]
    assert verdict(-np.inf, -np.inf) and not verdict(0.0, -np.inf)


def test_a_threshold_serves_only_the_steps_and_the_gallery_that_it_was_fitted_to(tmp_path):
    threshold = Threshold(0.5, 0.05, 60, 62, 0.0484, 474, 0.9, 0.95)
    own, grown = Provenance("weights", "photos", "train"), Provenance("weights", "more photos", "train")
    (tmp_path / "no-landmark-a.json").write_text('{"format": "another"}')
    (tmp_path / "no-landmark-b.json").write_text("[")
    save_threshold(tmp_path / "no-landmark.json", threshold, Pipeline(), [own])
    assert load_threshold(tmp_path, Pipeline(), [own]) == threshold
    assert load_threshold(tmp_path, Pipeline(), [grown]) is load_threshold(tmp_path, Pipeline(), [own, own]) is None
    assert load_threshold(tmp_path, Pipeline((Search(5), Vote(5, 9.0))), [own]) is None
    assert "for 5% of 60 photos without landmark to be answered; of 62 others 4.8% are" in str(threshold)
