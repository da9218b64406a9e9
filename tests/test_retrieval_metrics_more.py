"""Tie order by key, thresholds, classes and the bootstrap, each against a plain twin."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.evaluation import ClassFigures, mean_recall, per_class, worst
from retrieval.metrics import answers_at_far, gap, gap_landmark_only, interval, resampled_gaps, tar_at_far

QUERY = st.tuples(st.integers(-1, 3), st.sampled_from([0.0, 0.25, 0.5]), st.sets(st.integers(0, 3), max_size=2))


def columns(queries):
    labels, scores, truths = [list(column) for column in zip(*queries)] or [[], [], []]
    return np.array(labels, int), np.array(scores), truths


@given(st.lists(QUERY, max_size=20), st.randoms())
def test_with_keys_the_order_given_does_not_matter(queries, random):
    """The official rule: score descending, then key."""
    keys = [f"{i:02d}" for i in range(len(queries))]
    shuffled = random.sample(range(len(queries)), len(queries))
    moved = columns([queries[i] for i in shuffled]), [keys[i] for i in shuffled]
    assert gap(*moved[0], moved[1]) == gap(*columns(queries), keys) == gap(*columns(queries))
    assert gap_landmark_only(*moved[0], moved[1]) == gap_landmark_only(*columns(queries))


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
    (([1.0], [1.0], 1.5), r"share of the impostors in \[0, 1\], got 1.5"),
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


@given(st.lists(QUERY, min_size=1, max_size=12))
def test_resampled_gaps_are_gaps_of_the_drawn_queries(queries):
    labels, scores, truths = columns(queries)
    found = resampled_gaps(labels, scores, truths, rounds=3, seed=5)
    rng = np.random.default_rng(5)
    for value in found:
        drawn = np.sort(rng.integers(0, len(truths), len(truths)))  # the order of equal scores is that of the queries
        assert value == pytest.approx(gap(labels[drawn], scores[drawn], [truths[i] for i in drawn]), abs=1e-12)


def test_the_interval_holds_the_middle():
    assert interval(np.arange(1001.0)) == pytest.approx((25, 975))
    assert interval(resampled_gaps([], [], [], rounds=4)) == (0, 0)
