"""Votes of neighbours, and evaluate() as their composition."""
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import evaluate, gap, nearest, vote


@given(st.lists(st.lists(st.tuples(st.sampled_from([1.0, .75, .5, .25, 0.0, -.5]), st.integers(-1, 2)),
                         min_size=5, max_size=5), min_size=1, max_size=8),
       st.integers(1, 5), st.sampled_from([1, 2, 8]))
def test_vote_equals_its_definition(queries, k, power):
    """Sums of a dictionary per query; cosines and powers are exact, so equal sums are true ties."""
    queries = [sorted(row, key=lambda pair: -pair[0]) for row in queries]
    table = np.array(queries)
    labels, scores = vote(table[..., 0].astype(np.float32), table[..., 1].astype(np.int64), k, power)
    for row, label, score in zip(queries, labels, scores):
        sums = defaultdict(float)
        for cosine, voted in row[:k]:
            sums[voted] += max(cosine, 0.0) ** power
        assert (label, score) == max(sums.items(), key=lambda item: item[1])  # of equals the first put in


def test_one_voter_is_the_nearest_neighbour_and_its_cosine():
    cosines = np.array([[.9, .8], [.3, .3]], np.float32)
    labels, scores = vote(cosines, np.array([[4, 5], [-1, 2]]), 1, 1)
    assert labels.tolist() == [4, -1]
    assert scores.tolist() == cosines[:, 0].astype(np.float64).tolist()


def test_power_weighs_one_near_against_many_far():
    cosines, labels = np.array([[.9, .5, .5]], np.float32), np.array([[1, 2, 2]])
    assert vote(cosines, labels, 3, 1)[0].tolist() == [2]
    assert vote(cosines, labels, 3, 8)[0].tolist() == [1]


@pytest.mark.parametrize(("k", "power", "sentence"), [
    (0, 1, "k must be 1 to the 2 neighbours given, got 0"),
    (3, 1, "k must be 1 to the 2 neighbours given, got 3"),
    (1, 0, "power must be above 0, got 0"), (1, float("nan"), "power must be above 0, got nan")])
def test_errors_say_the_rule(k, power, sentence):
    with pytest.raises(ValueError, match=sentence):
        vote(np.ones((1, 2), np.float32), np.zeros((1, 2), np.int64), k, power)


def directions(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_evaluate_by_hand():
    """By confidence: 0 right (1), no landmark, 1 right (2/3), then a query of 1 that is answered 0."""
    gallery, gallery_labels = directions(0, 90, 180), np.array([0, 1, -1])
    queries, truths = directions(1, 2, 87, 10), [{0}, set(), {1, 3}, {1}]
    found = evaluate(queries, truths, gallery, gallery_labels, voters=1, power=1)
    assert found.metrics == {
        "gap": pytest.approx((1 + 2 / 3) / 3), "gap_landmark_only": pytest.approx((1 + 1) / 3),
        "recall@1": pytest.approx(2 / 3), "map@100": pytest.approx((1 + 1 + 1 / 2) / 3)}
    assert found.neighbours.tolist() == [[0, 1, 2], [0, 1, 2], [1, 0, 2], [0, 1, 2]]
    assert found.answers.tolist() == [0, 0, 1, 0]


def test_evaluate_is_the_parts_put_together():
    rng = np.random.default_rng(3)
    gallery, queries = (rng.normal(size=(rows, 8)).astype(np.float32) for rows in (300, 50))
    gallery_labels, labels = rng.integers(-1, 9, 300), rng.integers(-1, 9, 50)
    truths = [{x} if x >= 0 else set() for x in labels.tolist()]
    found = evaluate(queries, truths, gallery, gallery_labels, voters=5, power=8)
    cosines, neighbours = nearest(queries, gallery, 100)
    answers, scores = vote(cosines, gallery_labels[neighbours], 5, 8)
    assert (found.neighbours == neighbours).all() and (found.cosines == cosines).all()
    assert (found.answers == answers).all() and (found.scores == scores).all()
    assert found.metrics["gap"] == gap(answers, scores, truths)


def test_evaluate_refuses_an_empty_gallery():
    with pytest.raises(ValueError, match="k must be 1 to the gallery's 0 rows"):
        evaluate(directions(1), [{0}], directions(), np.zeros(0, np.int64), voters=1, power=1)
