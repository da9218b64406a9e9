"""Answers step by step, pairs of confused classes, and which queries are worth a look."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.gallery import choose_traced
from retrieval import Candidates, Pipeline, QuerySet, Vectors, answer, gap
from retrieval.metrics import is_true
from retrieval.state import Neighbors
from retrieval.steps import Concatenate, FrequentClass, GalleryPenalty, LocalFeatures, Merge, QueryPenalty, Search, Vote
from retrieval.trace import NEAREST, Snapshot, by_nearest, confusions, places, rank_of_truth, step_figures, trace

LIST = (GalleryPenalty(2), Search(8), LocalFeatures(4), Merge(k=6), Vote(), QueryPenalty(3))


@pytest.fixture(scope="module")
def asked():
    """60 queries of 9 labels or none to 200 photos, by two models; every fifth query is a non-landmark."""
    rng = np.random.default_rng(3)
    centers, labels, gallery_labels = rng.normal(size=(10, 8)), rng.integers(-1, 9, 60), rng.integers(0, 9, 200)
    labels[::5] = -1
    none, keys = labels < 0, [f"photo{i}" for i in range(60)]

    def model():
        queries, gallery = ((centers[shown] + rng.normal(size=(len(shown), 8))).astype(np.float32)
                            for shown in (labels, gallery_labels))
        queries, gallery = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (queries, gallery))
        return Vectors(queries, gallery, queries[none])

    return QuerySet((model(), model()), gallery_labels, [{x} if x >= 0 else set() for x in labels.tolist()], keys,
                     [key for key, is_none in zip(keys, none) if is_none], lambda rows: rows % 50)


def test_a_trace_ends_in_the_answers(asked):
    """Each snapshot from the vote on is the answer of the steps so far, though the queries judge each other."""
    snapshots = trace(asked, Pipeline(LIST))
    assert [snapshot.step for snapshot in snapshots] == [NEAREST, "gallery_penalty", "local_features", "merge", "vote",
                                                "query_penalty"]
    assert [len(snapshot.neighbors) for snapshot in snapshots] == [2, 2, 2, 1, 1, 1]
    expected = answer(asked, Pipeline(LIST))
    np.testing.assert_array_equal(snapshots[-1].candidates.labels, expected.labels)
    np.testing.assert_array_equal(snapshots[-1].candidates.scores, expected.scores)
    assert [snapshot.neighbors[0].inliers is None for snapshot in snapshots[1:4]] == [True, False, True]


def test_steps_before_the_search_show_in_what_it_finds(asked):
    """The snapshot of a changed embedding is that of a list that searches it at once."""
    first, penalized, *_ = trace(asked, Pipeline(LIST))
    for snapshot, steps in ((first, ()), (penalized, LIST[:1])):
        expected = trace(asked, Pipeline((*steps, Search(8), Vote(), QueryPenalty(3))))[len(steps)]
        np.testing.assert_array_equal(snapshot.neighbors[1].rows, expected.neighbors[1].rows)
    assert (first.neighbors[0].rows != penalized.neighbors[0].rows).any()


def test_figures_add_up(asked):
    pipeline = Pipeline((Concatenate(), Search(), Vote(), QueryPenalty(3), FrequentClass(1000)))
    snapshots = trace(asked, pipeline)
    rows, found = step_figures(snapshots, asked.truths, asked.keys), answer(asked, pipeline)
    assert rows[-1].gap == gap(found.answers, found.confidences, asked.truths, asked.keys)
    assert rows[0].gap + sum(row.gain for row in rows) == pytest.approx(rows[-1].gap)
    assert (rows[0].changed, rows[-1].changed, rows[-1].gain) == (0, 0, 0)
    right = [int(is_true(snapshot.candidates.answers[:, None], asked.truths).sum()) for snapshot in snapshots]
    assert [row.mended - row.spoiled for row in rows] == [0, *np.diff(right).tolist()]
    assert all(row.mended + row.spoiled <= row.changed for row in rows)


def test_steps_without_a_search_are_refused(asked):
    with pytest.raises(ValueError, match="no neighbors to answer by: put search into"):
        trace(asked, Pipeline((Vote(),)))


def test_landmarks_stand_in_the_order_of_their_nearest_photo():
    """Two lists; rows 0 and 3 show landmark 5, row 2 none; the last place of the second list is empty."""
    lists = (Neighbors(np.float32([[.9, .5]]), np.array([[0, 1]])),
             Neighbors(np.float32([[.95, .7, -np.inf]]), np.array([[2, 3, 1]])))
    found = by_nearest(lists, np.array([5, 6, -1, 5]))
    assert found.labels.tolist() == [[-1, 5, 6, -1, -1]]
    assert found.scores.tolist() == [[*np.float32([.95, .9, .5]).tolist(), -np.inf, -np.inf]]


def test_ranks_and_places_by_hand():
    """The second query has no candidate, the third none that is right; equal scores stand by key."""
    found = Candidates(np.array([[4, 7], [-1, -1], [5, 6], [8, -1]]),
                       np.array([[.2, .1], [-np.inf] * 2, [.2, .1], [.9, -np.inf]]))
    truths = [{7, 3}, {1}, {1}, {8}]
    assert rank_of_truth(found, truths).tolist() == [2, 0, 0, 1]
    assert places(found, truths, ["d", "c", "b", "a"]).tolist() == [3, 0, 2, 1]


def test_confusions_by_hand():
    """1 is taken for 2 twice; no answer and a photo without landmark confuse no pair; two landmarks count for both."""
    found = confusions([2, 2, 1, -1, 9, 3], [.1, .5, .9, .8, .7, .6], [{1}, {1}, {1}, {1}, set(), {4, 5}])
    assert [(one.shown, one.answered, one.queries) for one in found] == [(1, 2, [1, 0]), (4, 3, [5]), (5, 3, [5])]
    assert confusions([], [], []) == []


@given(st.lists(st.tuples(*3 * [st.integers(-1, 2)], st.floats(-1, 1)), min_size=1, max_size=80), st.integers(1, 36))
def test_chosen_queries(queries, count):
    """None twice, as many as there are up to count; what was mended or spoiled stands where that is said."""
    before, after, true = (np.array(column) for column in list(zip(*queries))[:3])
    scores, truths = np.array([query[3] for query in queries]), [{x} if x >= 0 else set() for x in true.tolist()]
    snapshots = [Snapshot("", (), Candidates(labels[:, None], scores[:, None])) for labels in (before, after)]
    chosen = choose_traced(snapshots, truths, count)
    rows = np.concatenate(list(chosen.values())).tolist()
    assert len(rows) == len(set(rows)) == min(count, len(queries))
    right, was_right = (is_true(labels[:, None], truths)[:, 0] for labels in (after, before))
    for heading, kind in (("Mended", right & ~was_right), ("Spoiled", was_right & ~right)):
        group = np.concatenate([rows for name, rows in chosen.items() if name.startswith(heading)] or [[]]).astype(int)
        assert kind[group].all() and len(group) == min(kind.sum(), count // 6)
        assert scores[group].tolist() == sorted(scores[kind], reverse=True)[:count // 6]
