"""GAP, recall@k and mAP@k against hand-computed cases and slow twins written from the definitions."""
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import count_relevant, gap, gap_landmark_only, map_at_k, recall_at_k


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
    labels, scores, truths = [list(column) for column in zip(*predictions)] or [[], [], []]
    given_to_gap = np.array(labels, int), np.array(scores), truths
    assert gap(*given_to_gap) == pytest.approx(gap_from_definition(predictions), abs=1e-12)
    landmarks = [p for p in predictions if p[2]]
    assert gap_landmark_only(*given_to_gap) == pytest.approx(gap_from_definition(landmarks), abs=1e-12)


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
    (lambda: recall_at_k([[1]], [{1}], 0), "k must be at least 1, got 0"),
])
def test_errors_say_the_rule(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_nan_where_nothing_is_predicted_is_fine():
    assert gap([-1, 1], [np.nan, .5], [{2}, {1}]) == 0.5
