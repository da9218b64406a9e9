"""Lists and candidates ranked anew: k-reciprocal neighbors, local features, the learned re-ranker."""
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcshard.console import UserError
from retrieval import Pipeline, QuerySet, Vectors, gap, read_pipeline
from retrieval.evaluation import answer, final_states, folds
from retrieval.pipeline import write_pipeline
from retrieval.reranker import FOLDS, Reranker, fold_of
from retrieval.run.rerank import features_and_targets, fit, fit_reranker
from retrieval.state import Candidates, Neighbors, State
from retrieval.steps import KReciprocal, LocalFeatures, Merge, NonLandmarkRule, Rerank, Search, Vote
from retrieval.steps.reciprocal import lists_around
from retrieval.steps.rerank import first_or_second
from retrieval.tuning import Part, ablation, tune


def vectors(seed, rows, dim=6):
    """Unit rows around ten common directions, so that neighborhoods overlap."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(10, dim))
    drawn = directions[rng.integers(0, 10, rows)] + 0.5 * rng.normal(size=(rows, dim))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def jaccard_of_paper(query, gallery, rows, k1, k2):
    """Zhong et al. 2017, equations 1 to 10, dense and in float64; the query is in no gallery photo's encoding."""
    gallery, query = gallery.astype(np.float64), query.astype(np.float64)
    near = gallery @ gallery.T
    np.fill_diagonal(near, np.inf)
    order = np.argsort(-near, axis=1)

    def reciprocal(i, k):
        return {j for j in order[i, :k + 1] if i in order[j, :k + 1]}

    def expanded(members):
        return members.union(*(half for g in members if len((half := reciprocal(g, round(k1 / 2))) & members)
                               > 2 / 3 * len(half)))

    def encoded(vector, members):
        v = np.zeros(len(gallery))
        v[list(members)] = np.exp(-(1 - gallery[list(members)] @ vector))
        return v / max(v.sum(), 1e-300)

    to_query = gallery @ query
    first = np.argsort(-to_query)[:k1]
    own = encoded(query, expanded({g for g in first if to_query[g] > near[g, order[g, k1]]}))
    photos = np.array([encoded(gallery[g], expanded(reciprocal(g, k1))) for g in range(len(gallery))])
    smooth = np.array([photos[order[g, :k2]].mean(axis=0) for g in range(len(gallery))])
    mine = (own + photos[first[:k2 - 1]].sum(axis=0)) / k2
    return np.array([np.minimum(mine, smooth[g]).sum() / np.maximum(mine, smooth[g]).sum() for g in rows])


@settings(max_examples=8)
@given(st.integers(0, 1000), st.sampled_from([(20, 6), (7, 3), (4, 1), (1, 1)]))
def test_k_reciprocal_is_that_of_the_paper(seed, counts):
    k1, k2 = counts
    asked = Vectors(vectors(seed, 3), vectors(seed + 1, 50))
    state = Search(12)(State((asked,), np.zeros(50, np.int64)))
    before, found = state.neighbors[0], KReciprocal(k1, k2, 0.3)(state).neighbors[0]
    for q in range(3):
        overlaps = jaccard_of_paper(asked.queries[q], asked.gallery, before.rows[q], k1, k2)
        scores = 0.3 * before.scores[q] + 0.7 * overlaps
        assert dict(zip(found.rows[q], found.scores[q])) == pytest.approx(dict(zip(before.rows[q], scores)), abs=1e-5)
        assert (np.diff(found.scores[q]) <= 0).all()


def test_k_reciprocal_knows_small_galleries_copies_and_short_lists():
    gallery = np.repeat(vectors(1, 3), 2, axis=0)  # each photo twice
    state = State((Vectors(vectors(0, 4), gallery),), np.zeros(6, np.int64),
                  neighbors=(Neighbors(np.array([[.5, -np.inf]] * 4, np.float32), np.array([[3, 0]] * 4)),))
    for weight in (0.0, 0.3):
        found = KReciprocal(20, 6, weight)(state).neighbors[0]
        assert np.isfinite(found.scores[:, 0]).all() and np.isneginf(found.scores[:, 1]).all()
    one = State((Vectors(vectors(0, 1), vectors(1, 1)),), np.zeros(1, np.int64))
    assert KReciprocal()(Search(1)(one)).neighbors[0].rows.tolist() == [[0]]


def test_lists_are_of_all_that_an_encoding_sees_and_no_more():
    gallery = vectors(3, 300)
    lists = lists_around(np.array([5]), gallery, 3)
    steps, seen = {5}, {5}
    for _ in range(3):
        steps = {other for row in steps for other in lists[row]}
        seen |= steps
    assert set(lists) == seen and len(seen) < 300
    assert all(listed[0] == row and len(set(listed)) == 4 for row, listed in lists.items())


@pytest.mark.parametrize("numbers, sentence", [({"k1": 5, "k2": 6}, "k2 is 6: give 1 to k1, which is 5"),
                                               ({"k2": 0}, "k2 is 0: give 1 to k1"),
                                               ({"weight": 1.5}, "weight is 1.5: give 0 to 1")])
def test_k_reciprocal_refuses_numbers_without_meaning(numbers, sentence):
    with pytest.raises(ValueError, match=sentence):
        KReciprocal(**numbers)


def listed(scores, rows):
    return Neighbors(np.array(scores, np.float32), np.array(rows))


def test_local_features_add_what_their_inliers_say_to_the_first_k():
    """score + weight × min(inliers, cap) / cap; the third is not compared, -inf stays no neighbor."""
    asked = []

    def count(rows):
        asked.append(rows.tolist())
        return np.array([[45, 900], [0, 30]])

    state = State((), np.zeros(0, np.int64), inliers=count,
                  neighbors=(listed([[.9, .8, .7], [.5, -np.inf, -np.inf]], [[4, 5, 6], [7, 0, 0]]),))
    found = LocalFeatures(2, 90, 0.5)(state).neighbors[0]
    assert asked == [[[4, 5], [7, 0]]]
    assert found.rows.tolist() == [[5, 4, 6], [7, 0, 0]] and found.inliers.tolist()[0] == [900, 45, 0]
    np.testing.assert_allclose(found.scores, [[1.3, 1.15, .7], [.5, -np.inf, -np.inf]], rtol=1e-6)


@pytest.mark.parametrize("steps, sentence", [
    ((LocalFeatures(), Search(), Vote()), "local_features compares the photos of neighbors: put search before it"),
    ((Search(), LocalFeatures(), Vote()), "local_features compares photos, but there are none: give the dataset"),
    ((KReciprocal(), Search(), Vote()), "put it after search and before merge"),
    ((Search(), Merge(), KReciprocal(), Vote()), "put it after search and before merge")])
def test_steps_in_a_wrong_order_say_so(steps, sentence):
    two = (Vectors(vectors(0, 3), vectors(1, 30)), Vectors(vectors(2, 3), vectors(3, 30)))
    with pytest.raises(ValueError, match=sentence):
        Pipeline(steps).answer(two, np.zeros(30, np.int64))


@pytest.fixture(scope="module")
def asked():
    """800 queries, a third of which show none of the 12 landmarks and judge the others as well."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(12, 16))
    truths = [{int(rng.integers(12))} if rng.random() < 0.67 else set() for _ in range(800)]
    gallery_labels = np.repeat(np.arange(12), 8)

    def around(labels, noise):
        drawn = np.array([centers[label] if label >= 0 else 0.5 * rng.normal(size=16) for label in labels])
        drawn += noise * rng.normal(size=drawn.shape)
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    labels = np.array([next(iter(truth), -1) for truth in truths])
    queries = around(labels, 1.0)
    keys = [f"q{i:03d}" for i in range(800)]
    models = Vectors(queries, around(gallery_labels, 0.8), queries[labels < 0]),
    return QuerySet(models, gallery_labels, truths, keys, [key for key, label in zip(keys, labels) if label < 0],
                     lambda rows: (gallery_labels[rows] == labels[:, None]) * 40 + rows % 7)


STEPS = Pipeline((Search(6), LocalFeatures(4), Vote(6, 1.0)))


@pytest.fixture(scope="module")
def reranker(asked):
    return fit_reranker([asked], STEPS, top=2, seeds=1)


def test_a_re_ranker_is_told_what_the_definitions_say(asked):
    """Every feature of every query from lists and dictionaries."""
    names, told, right = features_and_targets(asked, STEPS, 2)
    states = final_states(asked, STEPS, True)
    assert len(states) == 2
    halves = folds(asked.keys)
    judges = folds(asked.non_landmark_keys)
    for q in range(0, 800, 17):
        state = states[halves[q]]
        found, listed = state.candidates, state.neighbors[0]
        cosines = asked.models[0].non_landmarks[judges != halves[q]].astype(np.float64) @ asked.models[0].queries[q]
        expected = {f"non_landmark_{j}": value for j, value in enumerate(np.sort(cosines)[::-1][:10])}
        expected["lead"] = found.scores[q, 0] - found.scores[q, 1] if found.scores[q, 1] > -np.inf else np.nan
        for i in range(2):
            label = found.labels[q, i]
            bears = [j for j in range(6) if asked.gallery_labels[listed.rows[q, j]] == label]
            scores = listed.scores[q, bears].astype(np.float64)
            others = found.scores[found.labels[:, 0] == label, 0]
            some = len(others) > 0
            values = {"score": found.scores[q, i], "answers": len(others) or np.nan,
                      "answers_mean": others.mean() if some else np.nan,
                      "answers_max": others.max() if some else np.nan,
                      "answers_std": others.std() if some else np.nan, "number_0": len(bears),
                      "nearest_0": max(scores, default=np.nan), "mean_0": scores.mean() if bears else np.nan,
                      "inliers_0": max(listed.inliers[q, bears], default=0)}
            there = found.scores[q, i] > -np.inf
            expected |= {f"{name}_{i}": value if there else np.nan for name, value in values.items()}
        assert dict(zip(names, told[q])) == pytest.approx(expected, abs=1e-5, nan_ok=True)
        hits = [i for i in range(2) if found.labels[q, i] in asked.truths[q]]
        assert right[q] == (hits[0] if hits else 2)


def test_second_place_answers_the_first_or_second_candidate_only():
    """Probabilities of three candidates and of none; the fifth query has one candidate, the last has none."""
    labels = np.array([[7, 8, 9]] * 4 + [[7, -1, -1], [-1, -1, -1]])
    scores = np.where(labels >= 0, 1.0, -np.inf)
    judged = np.array([[.5, .3, .1, .1], [.3, .5, .1, .1], [.2, .3, .4, .1], [.1, .3, .2, .4], [.2, .6, .1, .1],
                       [.1, .1, .1, .7]])
    found = first_or_second(Candidates(labels, scores), judged)
    assert found.labels[:, 0].tolist() == [7, 8, 7, 7, 7, -1]
    np.testing.assert_allclose(found.scores[:, 0], [.5, .5, .2, .6, .2, -np.inf])
    one = first_or_second(Candidates(labels[:1, :1], scores[:1, :1]), np.array([[.4, .6]]))
    assert one.labels.tolist() == [[7]] and one.scores.tolist() == [[.4]]


def test_no_booster_has_seen_what_it_judges_in_an_evaluation(asked, reranker):
    """Other truths of fold 3 change none of the boosters that judge it, and others."""
    _, told, right = features_and_targets(asked, STEPS, 2)
    inside = np.array([fold_of(key) == 3 for key in asked.keys])
    other = fit(told, np.where(inside, 2 - right, right), asked.keys, top=2, seeds=1)
    changed = [other[fold][0] != reranker.boosters[fold][0] for fold in range(FOLDS)]
    assert not changed[3] and changed[0] and changed[1] and changed[4]  # 2 stops by it
    known, unknown = reranker.probabilities(told, asked.keys), reranker.probabilities(told, ())
    by_fold = [replace(reranker, boosters=[texts]).probabilities(told, ()) for texts in reranker.boosters]
    np.testing.assert_allclose(known[inside], by_fold[3][inside], rtol=1e-12)
    np.testing.assert_allclose(unknown, np.mean(by_fold, axis=0), rtol=1e-12)
    np.testing.assert_allclose(known.sum(axis=1), 1, rtol=1e-9)


def test_a_fitted_re_ranker_answers_from_its_file_and_better(asked, reranker, tmp_path):
    path = tmp_path / "r.json"
    reranker.save(path)
    assert Reranker.load(path) == reranker == fit_reranker([asked], STEPS, top=2, seeds=1)
    (tmp_path / "a.yaml").write_text(write_pipeline(Pipeline((*STEPS.steps, Rerank(str(path))))))
    pipeline = read_pipeline(tmp_path / "a.yaml")
    before, after = answer(asked, STEPS), answer(asked, pipeline)
    assert after.scores.min(initial=0, where=np.isfinite(after.scores)) >= 0 and after.scores.max() <= 1
    assert after.labels.shape == (800, 2)
    values = [gap(found.answers, found.confidences, asked.truths, asked.keys) for found in (before, after)]
    assert values[1] > values[0]


def test_a_re_ranker_of_other_steps_or_features_is_refused(asked, reranker, tmp_path):
    path = tmp_path / "r.json"
    reranker.save(path)
    bare = Pipeline((Search(6), Vote(6, 1.0), Rerank(str(path))))
    (tmp_path / "a.yaml").write_text(write_pipeline(bare))
    with pytest.raises(UserError, match="r.json was fitted after other steps than stand before it here: fit it again"):
        read_pipeline(tmp_path / "a.yaml")
    with pytest.raises(ValueError, match="r.json was fitted on other features than these steps and runs have"):
        answer(asked, bare)
    with pytest.raises(ValueError, match="put vote before it"):
        answer(asked, Pipeline((Search(6), Rerank(str(path)), Vote(6, 1.0))))


def test_what_a_judge_was_fitted_after_is_neither_left_out_nor_tuned(monkeypatch):
    tried = []

    def answer(asked, pipeline, device):
        tried.append(pipeline.steps)
        return Candidates(np.array([[1], [2]]), np.array([[.5], [.4]]))

    monkeypatch.setattr("retrieval.tuning.answer", answer)
    monkeypatch.setattr("retrieval.tuning.answer_and_rank", lambda *asked: (answer(*asked), None))
    judged = (*STEPS.steps, Rerank("r.json"))
    asked = QuerySet((), np.zeros(0, np.int64), [{1}, {1}], ["a", "b"])
    rows = ablation(asked, Pipeline((*judged, NonLandmarkRule())))
    assert [row.change for row in rows] == ["without Rerank", "without NonLandmarkRule"]
    tried.clear()
    tune([Part(asked, np.full(2, True))], Pipeline((*judged, NonLandmarkRule())))
    assert len(tried) > 1 and all(steps[:4] == judged for steps in tried)


def test_a_re_ranker_without_lightgbm_is_refused(reranker, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(UserError, match=r"re-ranking needs LightGBM, .*: pip install 'arcshard\[rerank\]'"):
        reranker.probabilities(np.zeros((1, 1)), ())


@pytest.mark.parametrize("content", [None, "{}", "[]", "no JSON", '{"format": "arcshard-reranker-1", "top": 3}',
                                     '{"format": "another"}'])
def test_what_is_no_re_ranker_is_refused(tmp_path, content):
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"(no re-ranker at .*r.json|r.json is no re-ranker of format).*: fit"):
        Rerank(str(path)).reranker()


def test_a_re_ranker_that_was_edited_is_refused_and_an_older_one_without_hash_read(reranker, tmp_path):
    path = tmp_path / "r.json"
    reranker.save(path)
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "fitted_on": fields["fitted_on"][1:]}))
    with pytest.raises(UserError, match="r.json was changed after it was fitted: restore it, or fit it again"):
        Reranker.load(path)
    fields.pop("sha256")
    path.write_text(json.dumps(fields))
    assert Reranker.load(path) == reranker


def test_a_re_ranker_needs_queries_in_every_fold():
    with pytest.raises(ValueError, match="fitted on 5 folds of queries, got 2: give more"):
        fit(np.zeros((2, 1)), np.zeros(2, np.int64), ["a", "b"], 3)
