"""Metrics, thresholds, figures of classes and the bootstrap: by hand, and against slow twins of the definitions."""
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import count_relevant, gap, gap_landmark_only, map_at_k, recall_at_k
from retrieval.evaluation import ClassFigures, mean_recall, per_class, worst
from retrieval.metrics import answers_at_far, interval, resampled_gaps, tar_at_far


@pytest.mark.parametrize(("labels", "scores", "truths", "expected"), [
    ([1, 2, 3], [.9, .8, .7], [{1}, {2}, {3}], Fraction(1)),
    ([1, 9, 3], [.9, .8, .7], [{1}, {2}, {3}], (Fraction(1, 1) + Fraction(2, 3)) / 3),
    # the most confident prediction is on a photo without landmark: it takes the first rank and M stays 2
    ([5, 1, 2], [.9, .8, .7], [set(), {1}, {2}], (Fraction(1, 2) + Fraction(2, 3)) / 2),
    # no prediction on it: no rank taken
    ([-1, 1, 2], [.9, .8, .7], [set(), {1}, {2}], Fraction(1)),
    # no prediction on a landmark: only its own share is lost
    ([-1, 1], [.9, .8], [{4}, {1}], Fraction(1, 2)),
    # equal scores: the earlier query first, so the same pair gives 1 + 0 or 0 + 1/2
    ([1, 7], [.5, .5], [{1}, {2}], Fraction(1, 2)),
    ([7, 1], [.5, .5], [{2}, {1}], Fraction(1, 4)),
    # several true labels: any of them is right, and the query counts once
    ([3, 5, 8], [.3, .2, .1], [{1, 2, 3}, {5}, {4, 9}], (Fraction(1) + Fraction(1)) / 3),
    ([2, 1, 3, 4], [-5., 1e9, 0., -4.], [{2}, set(), {3}, {5}], (Fraction(1, 2) + Fraction(2, 4)) / 3),
    ([-1, -1], [0., 0.], [{1}, {2}], Fraction(0)),
    ([3, -1], [1., 0.], [set(), set()], Fraction(0)),
    ([], [], [], Fraction(0)),
])
def test_gap_by_hand(labels, scores, truths, expected):
    assert gap(labels, scores, truths) == pytest.approx(float(expected), abs=1e-15)


LABEL = st.integers(0, 3)
TRUTH = st.sets(LABEL, max_size=3)
PREDICTION = st.tuples(st.integers(-1, 3), st.sampled_from([-1.0, 0.0, 0.1, 0.25, 0.5, 1e-30]), TRUTH)


def columns(predictions):
    labels, scores, truths = [list(column) for column in zip(*predictions)] or [[], [], []]
    return np.array(labels, int), np.array(scores), truths


def gap_from_definition(predictions):
    """Rank by counting who stands before whom, then precision at each right answer, in exact arithmetic."""
    asked = [i for i, (label, _, _) in enumerate(predictions) if label != -1]
    total, landmarks = Fraction(0), sum(1 for _, _, truth in predictions if truth)
    for i in asked:
        label, score, truth = predictions[i]
        before = [j for j in asked if predictions[j][1] > score or (predictions[j][1] == score and j <= i)]
        if label in truth:
            total += Fraction(sum(predictions[j][0] in predictions[j][2] for j in before), len(before))
    return float(total / landmarks) if landmarks else 0.0


@given(st.lists(PREDICTION, max_size=30))
def test_gap_equals_its_definition(predictions):
    given_to_gap = columns(predictions)
    assert gap(*given_to_gap) == pytest.approx(gap_from_definition(predictions), abs=1e-12)
    landmarks = [p for p in predictions if p[2]]
    assert gap_landmark_only(*given_to_gap) == pytest.approx(gap_from_definition(landmarks), abs=1e-12)


@given(st.lists(PREDICTION, max_size=20), st.randoms())
def test_with_keys_the_order_given_does_not_matter(predictions, random):
    """The official rule: score descending, then key."""
    keys = [f"{i:02d}" for i in range(len(predictions))]
    shuffled = random.sample(range(len(predictions)), len(predictions))
    moved = columns([predictions[i] for i in shuffled]), [keys[i] for i in shuffled]
    assert gap(*moved[0], moved[1]) == gap(*columns(predictions), keys) == gap(*columns(predictions))
    assert gap_landmark_only(*moved[0], moved[1]) == gap_landmark_only(*columns(predictions))


def test_gap_sees_float32_scores_as_they_are():
    """Scores one float32 step apart are no tie."""
    scores = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(1))], np.float32)
    assert gap([9, 1], scores, [{2}, {1}]) == 0.5


def test_gap_of_the_2019_test_set_takes_well_under_a_second():
    rng = np.random.default_rng(0)
    queries = 117_577
    labels, scores = rng.integers(0, 200_000, queries), rng.random(queries)
    truths = [{int(x)} if x % 2 else set() for x in rng.integers(0, 200_000, queries)]
    start = time.process_time()
    gap(labels, scores, truths)
    assert time.process_time() - start < 1


ROW = st.lists(st.integers(-1, 3), min_size=6, max_size=6)
RANKED = st.lists(st.tuples(ROW, TRUTH), min_size=1, max_size=12)


@given(RANKED, st.integers(1, 8))
def test_recall_equals_its_definition(queries, k):
    rows, truths = [row for row, _ in queries], [truth for _, truth in queries]
    hits = [any(label in truth for label in row[:k]) for row, truth in queries if truth]
    assert recall_at_k(np.array(rows), truths, k) == pytest.approx(np.mean(hits) if hits else 0.0)


@given(RANKED, st.integers(1, 8), st.lists(st.integers(-1, 3), max_size=20))
def test_map_equals_its_definition(queries, k, others):
    """The gallery holds each query's row and more, so n_q is at least what the row shows."""
    rows, truths = [row for row, _ in queries], [truth for _, truth in queries]
    gallery = [label for row in rows for label in row] + others
    relevant = [sum(label in truth for label in gallery) for truth in truths]
    assert count_relevant(np.array(gallery), truths).tolist() == relevant
    precisions = []
    for row, truth, n in zip(rows, truths, relevant):
        found = [r for r, label in enumerate(row[:k], 1) if label in truth]
        if n:
            precisions.append(sum(Fraction(i, r) for i, r in enumerate(found, 1)) / min(n, k))
    expected = float(sum(precisions) / len(precisions)) if precisions else 0.0
    assert map_at_k(np.array(rows), truths, relevant, k) == pytest.approx(expected, abs=1e-12)


def test_map_by_hand():
    """Right at ranks 1 and 3 of 3 relevant: (1 + 2/3) / 3; of 1000 at k = 4: / 4; none relevant: left out."""
    rows = np.array([[1, 2, 1, 2], [1, 2, 1, 2], [5, 5, 5, 5]])
    assert map_at_k(rows, [{1}, {1}, {7}], [3, 1000, 0], 4) == pytest.approx((5 / 9 + 5 / 12) / 2)


def test_a_gallery_photo_without_landmark_matches_nobody():
    rows = np.array([[-1, -1], [-1, 4]])
    assert recall_at_k(rows, [set(), {4}], 1) == 0.0
    assert recall_at_k(rows, [set(), {4}], 2) == 1.0
    assert count_relevant(np.array([-1, 4, -1]), [set(), {4}, {9}]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(("call", "sentence"), [
    (lambda: gap([1, 2], [.5], [{1}]), "for each query, got 2, 1 and 1"),
    (lambda: gap([1], [np.nan], [{1}]), "NaN score: give label -1"),
    (lambda: gap([1], [1.0], [{-1}]), "holds -1: give an empty set"),
    (lambda: recall_at_k([[1]], [{1}], 0), "k is 0: give at least 1"),
])
def test_errors_say_the_rule(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_nan_where_nothing_is_predicted_is_fine():
    assert gap([-1, 1], [np.nan, .5], [{2}, {1}]) == 0.5


SCORES = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), max_size=20)


@given(SCORES, SCORES, st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_tar_is_the_best_of_all_thresholds(genuine, impostor, far):
    def share(scores, threshold):
        return sum(score > threshold for score in scores) / len(scores) if scores else 0.0
    allowed = [t for t in [-np.inf, *genuine, *impostor] if share(impostor, t) <= far]
    assert tar_at_far(genuine, impostor, far) == max(share(genuine, t) for t in allowed)


@pytest.mark.parametrize("percent", [7, 29, 57, 58])
def test_a_share_is_not_rounded_away(percent):
    assert tar_at_far(np.arange(100) + .5, np.arange(100), percent / 100) == (percent + 1) / 100


def test_answers_at_far_by_hand():
    """Above .6, the one of two that may be accepted: right .9 and wrong .8; right .5 and the refusal stay below."""
    labels, scores = [1, 2, 3, -1, 7, 7], [.9, .8, .5, .99, .7, .6]
    assert answers_at_far(labels, scores, [{1}, {5}, {3}, {4}, set(), set()], 0.5) == 1 / 4


@pytest.mark.parametrize("given_, sentence", [
    (([1.0], [1.0], 1.5), "far is 1.5: give a share of the impostors"),
    (([np.nan], [1.0], .1), "NaN scores: give -inf")])
def test_thresholds_say_their_rule(given_, sentence):
    with pytest.raises(ValueError, match=sentence):
        tar_at_far(*given_)


def test_classes_by_hand():
    figures = per_class([1, 2, 2, 5, -1, 1], [{1, 2}, {2}, {3}, set(), {3}, {1}])
    assert figures == [ClassFigures(1, 2, 2, 0), ClassFigures(2, 2, 2, 1), ClassFigures(3, 2, 0, 0),
                       ClassFigures(5, 0, 0, 1)]
    assert [figure.label for figure in worst(figures, 2)] == [3, 1]
    assert mean_recall(figures) == pytest.approx(2 / 3) and mean_recall([]) == 0.0


@given(st.lists(PREDICTION, min_size=1, max_size=12))
def test_resampled_gaps_are_gaps_of_the_drawn_queries(predictions):
    labels, scores, truths = columns(predictions)
    found = resampled_gaps(labels, scores, truths, rounds=3, seed=5)
    rng = np.random.default_rng(5)
    for value in found:
        drawn = np.sort(rng.integers(0, len(truths), len(truths)))  # the order of equal scores is that of the queries
        assert value == pytest.approx(gap(labels[drawn], scores[drawn], [truths[i] for i in drawn]), abs=1e-12)


def test_the_interval_holds_the_middle():
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert interval(resampled_gaps([], [], [], rounds=4)) == (0, 0)
