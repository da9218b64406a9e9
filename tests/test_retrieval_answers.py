"""Every step against a twin written from its formula in float64, photo by photo."""
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import QuantileTransformer

from retrieval import Pipeline, Vectors
from retrieval.state import Candidates, Neighbors, State
from retrieval.steps import (
    Concatenate,
    DatabaseAugmentation,
    FrequentClass,
    GalleryPenalty,
    Head,
    LocalFeatures,
    Merge,
    NonLandmarkRule,
    Quantile,
    QueryExpansion,
    QueryPenalty,
    Rerank,
    Search,
    Vote,
)
from retrieval.steps.merge import merge
from retrieval.steps.quantile import to_normal
from retrieval.steps.vote import label_sums


def vectors(seed, rows, dim=8):
    drawn = np.random.default_rng(seed).normal(size=(rows, dim)) + 0.7  # mostly positive cosines, as real ones are
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def model(seed, dim=8):
    return Vectors(vectors(seed, 12, dim), vectors(seed + 100, 40, dim), vectors(seed + 200, 15, dim),
                   vectors(seed + 300, 14, dim).reshape(7, 2, dim) * np.float32(3))


@pytest.fixture
def state():
    """12 queries, 40 gallery photos of 7 labels (one of them none), 15 non-landmarks; two models."""
    models = model(0), model(1, 6)
    return State(models, np.random.default_rng(9).integers(-1, 6, 40), sources=models)


def unit64(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def cosines(a, b):
    return unit64(a) @ unit64(b).T


def sums_of(pairs):
    sums = defaultdict(float)
    for label, value in pairs:
        sums[int(label)] += value
    return dict(sums)


def as_dicts(found):
    return [{label: score for label, score in zip(labels, scores) if score > -np.inf}
            for labels, scores in zip(found.labels.tolist(), found.scores.tolist())]


@given(st.lists(st.lists(st.tuples(st.sampled_from([1.0, .75, .5, .25, 0.0, -.5, -np.inf]), st.integers(-1, 2)),
                         min_size=5, max_size=5), min_size=1, max_size=8), st.sampled_from([1, 2, 8]), st.booleans())
def test_label_sums_equal_their_definition(queries, power, signed):
    """Sums of a dictionary a query; scores and powers are exact, so equal sums are true ties."""
    power = 1 if signed else power
    queries = [sorted(row, key=lambda pair: -pair[0]) for row in queries]
    table = np.array(queries)
    found = label_sums(table[..., 0].astype(np.float32), table[..., 1].astype(np.int64), power, signed)
    for row, labels, scores in zip(queries, found.labels, found.scores):
        sums = sums_of((label, score if signed else max(score, 0.0) ** power)
                       for score, label in row if score > -np.inf)
        expected = sorted(sums.items(), key=lambda item: -item[1])  # stable: of equals the first put in
        expected += [(-1, -np.inf)] * (5 - len(expected))
        assert list(zip(labels.tolist(), scores.tolist())) == expected


def test_power_weighs_one_near_against_many_far():
    scores, labels = np.array([[.9, .5, .5]], np.float32), np.array([[1, 2, 2]])
    assert label_sums(scores, labels, 1).answers.tolist() == [2]
    assert label_sums(scores, labels, 8).answers.tolist() == [1]


def test_concatenated_cosines_are_means_weighted_by_squares(state):
    joined = Concatenate([2.0, 1.0])(state).models[0]
    one, two = (cosines(m.queries, m.gallery) for m in state.models)
    np.testing.assert_allclose(joined.queries @ joined.gallery.T, (4 * one + two) / 5, atol=1e-6)
    assert joined.non_landmarks.shape == (15, 14)
    assert Concatenate()(replace(state, models=(replace(model(0), non_landmarks=None), model(1)))
                         ).models[0].non_landmarks is None


@pytest.mark.parametrize("rows", [5, 300, 1500])
def test_quantiles_are_those_of_scikit_learn(rows):
    rng = np.random.default_rng(rows)
    fitted_on = np.hstack([rng.normal(size=(rows, 2)), rng.integers(0, 3, (rows, 1))]).astype(np.float32)
    values = np.vstack([fitted_on[:50], rng.normal(size=(50, 3)) * 3]).astype(np.float32)
    theirs = QuantileTransformer(n_quantiles=min(1000, rows), output_distribution="normal", subsample=None)
    expected = theirs.fit(fitted_on.astype(np.float64)).transform(values.astype(np.float64))
    np.testing.assert_allclose(to_normal(values, fitted_on), expected, atol=1e-5)


def test_quantile_scales_every_side_by_the_queries_and_drops_the_centers(state):
    scaled, asked = Quantile()(state).models[0], state.models[0]
    for side in ("queries", "gallery", "non_landmarks"):
        expected = unit64(to_normal(getattr(asked, side), asked.queries))
        np.testing.assert_allclose(getattr(scaled, side), expected, atol=1e-6)
    assert scaled.centers is None


def test_first_place_from_its_formulas(state):
    """A' = clamp(cos, 0, 1) - B, three of each model, summed by label; then C of concatenated embeddings."""
    steps = GalleryPenalty(5, 1.0), Search(3), Vote(3, 1, signed=True), QueryPenalty(10, 1.0)
    found = Pipeline(steps).answer(state.models, state.gallery_labels)
    pooled = [[] for _ in range(12)]
    for m in state.models:
        b = np.sort(cosines(m.gallery, m.non_landmarks), axis=1)[:, -5:].mean(axis=1)
        scores = cosines(m.queries, m.gallery).clip(0, 1) - b
        for q, row in enumerate(scores):
            pooled[q] += [(state.gallery_labels[j], row[j]) for j in np.argsort(-row)[:3]]
    both = np.mean([cosines(m.queries, m.non_landmarks) for m in state.models], axis=0)
    c = np.sort(both, axis=1)[:, -10:].mean(axis=1)
    for got, pairs, less in zip(as_dicts(found), pooled, c):
        assert got == pytest.approx({label: value - less for label, value in sums_of(pairs).items()}, abs=1e-5)


RULES = {"type0": lambda near: 1.5 * near[-1], "type1": lambda near: 1.5 * near[-1] + 3 * (near[-1] > .5),
         "type2": lambda near: 4 * (near[-1] - .3), "type3": lambda near: .5 * sum(near)}


@pytest.mark.parametrize("kind", RULES)
def test_second_place_from_its_formulas(state, kind):
    weights = [.6, .4]
    steps = (Search(10), Merge(weights, 10), Vote(10, 1), NonLandmarkRule(kind, weights=weights), FrequentClass(2, 2.0))
    found = Pipeline(steps).answer(state.models, state.gallery_labels)
    both = np.average([cosines(m.queries, m.non_landmarks) for m in state.models], axis=0, weights=np.square(weights))
    near = np.sort(both, axis=1)[:, :-4:-1]
    lower = [RULES[kind](row) if row[-1] >= .3 else 0 for row in near]
    assert 0 < np.count_nonzero(lower) and (kind != "type1" or (near[:, -1] > .5).any())
    expected = []
    for q in range(12):
        by_row = defaultdict(float)
        for m, weight in zip(state.models, (.6, .4)):
            row = cosines(m.queries, m.gallery)[q]
            for j in np.argsort(-row)[:10]:
                by_row[j] += weight * row[j]
        best = sorted(by_row.items(), key=lambda item: -item[1])[:10]
        sums = sums_of((state.gallery_labels[j], max(value, 0)) for j, value in best)
        expected.append({label: value - lower[q] for label, value in sums.items()})
    answers = [max(sums, key=sums.get) for sums in expected]
    for got, sums, first in zip(as_dicts(found), expected, answers):
        often = answers.count(first) > 2 and first != -1
        assert got == pytest.approx({label: value - 2 * often for label, value in sums.items()}, abs=1e-5)


def test_third_place_from_its_formulas(state):
    """cos^9 summed over five, times head^10 of the five best classes that the gallery has, else 1e-8."""
    found = Pipeline((Concatenate(), Search(5), Vote(5, 9), Head(10, 3, 1e-8))).answer(
        state.models, np.where(state.gallery_labels == 2, 3, state.gallery_labels))
    labels = np.where(state.gallery_labels == 2, 3, state.gallery_labels)
    cos = np.mean([cosines(m.queries, m.gallery) for m in state.models], axis=0)
    head = np.mean([np.einsum("qd,ckd->qck", unit64(m.queries), unit64(m.centers)).max(2) for m in state.models], 0)
    head[:, [2, 6]] = -1  # no photo of theirs in the gallery
    for got, near, heads in zip(as_dicts(found), cos, head):
        best = np.argsort(-heads)[:3]
        sums = sums_of((labels[j], max(near[j], 0) ** 9) for j in np.argsort(-near)[:5])
        expected = {label: np.log(value) + 10 * np.log(max(heads[label], 1e-8) if label in best else 1e-8)
                    for label, value in sums.items()}
        assert got == pytest.approx(expected, abs=1e-3)
        assert list(got) == sorted(got, key=lambda label: -got[label])


def test_a_penalty_by_vectors_of_their_own_length_is_that_of_first_places_notebook(state):
    """Quantile vectors side by side as they are, then cosines."""
    found = Pipeline((Quantile(), Search(3), Vote(3, 1), QueryPenalty(10, 1.0, lengths=True)))
    less = Pipeline((Quantile(), Search(3), Vote(3, 1)))
    sides = [np.hstack([to_normal(getattr(m, side), m.queries) for m in state.models])
             for side in ("queries", "non_landmarks")]
    c = np.sort(cosines(*sides), axis=1)[:, -10:].mean(axis=1)
    before, after = (p.answer(state.models, state.gallery_labels).scores[:, 0] for p in (less, found))
    np.testing.assert_allclose(before - after, c, atol=1e-5)


def test_a_rule_of_an_older_file_still_has_both_the_slope_and_the_extra():
    near = np.array([[.9, .8, .6], [.9, .5, .4], [.3, .2, .1]])
    older = NonLandmarkRule(rank=3, above=.3, slope=4.0, extra_above=.5, extra=3.0)
    np.testing.assert_allclose(older.amounts(near), [4 * .3 + 3, 4 * .1, 0])


def test_query_expansion_and_database_augmentation_from_their_formulas(state):
    asked = state.models[0]
    cos = cosines(asked.queries, asked.gallery)
    near = np.argsort(-cos, axis=1)[:, :4]
    expanded = [q + sum(max(row[j], 0) ** 3 * asked.gallery[j].astype(np.float64) for j in picked)
                for q, row, picked in zip(asked.queries, cos, near)]
    np.testing.assert_allclose(QueryExpansion(4, 3.0)(state).models[0].queries, unit64(expanded), atol=1e-6)
    near = np.argsort(-cosines(asked.gallery, asked.gallery), axis=1)[:, :10]
    smooth = [sum(w * asked.gallery[j].astype(np.float64) for w, j in zip(np.logspace(0, -1.5, 10), picked))
              for picked in near]
    np.testing.assert_allclose(DatabaseAugmentation(10, 1.5)(state).models[0].gallery, unit64(smooth), atol=1e-6)


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_an_index_ranks_by_the_penalized_cosine_and_never_makes_up_neighbors(method):
    rng = np.random.default_rng(5)
    gallery = vectors(1, 400)
    asked = Vectors(vectors(0, 12), gallery, penalty=rng.random(400).astype(np.float32) / 4)
    exact = Search(10)(State((asked,), np.zeros(400, np.int64))).neighbors[0]
    found = Search(10, method, 400)(State((asked,), np.zeros(400, np.int64))).neighbors[0]
    assert (found.rows == exact.rows).mean() > 0.9
    np.testing.assert_allclose(found.scores, exact.scores, atol=0.02)
    few = Search(300, "ivf", 1)(State((asked,), np.zeros(400, np.int64))).neighbors[0]
    assert np.isneginf(few.scores[:, -1]).all()


def test_merge_settles_ties_by_row_and_fills_short_lists():
    one = Neighbors(np.array([[.5, .25]], np.float32), np.array([[7, 3]]))
    two = Neighbors(np.array([[.5, .25]], np.float32), np.array([[3, 2]]))
    found = merge((one, two), [1, 1], 4)
    assert found.rows[0, :3].tolist() == [3, 7, 2] and found.scores.tolist() == [[.75, .5, .25, -np.inf]]


def test_a_frequent_class_spares_what_is_protected_and_who_refused(state):
    found = Candidates(np.array([[4], [4], [5], [-1], [-1]]), np.array([[.9], [.5], [.5], [.5], [.5]]))
    lowered = FrequentClass(1, 2.0, protect=.8)(replace(state, candidates=found)).candidates
    assert lowered.scores[:, 0].tolist() == [.9, -1.5, .5, .5, .5]


@pytest.mark.parametrize("steps, sentence", [
    ((Vote(),), "put search before it"),
    ((Search(), QueryPenalty(), Vote()), "put vote before it"),
    ((Search(), FrequentClass(), Vote()), "put vote before it"),
    ((Search(), Head(), Vote()), "put vote before it"),
    ((Search(),), "find no answers: put search and vote"),
    ((Concatenate([1.0]), Search(), Vote()), r"weights are \[1.0\]: give 2 numbers above 0")])
def test_steps_in_a_wrong_order_say_so(state, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pipeline(steps).answer(state.models, state.gallery_labels)


def test_a_pipeline_needs_what_one_of_its_steps_needs():
    assert Pipeline().needs == Pipeline((Concatenate(), Search(), Vote(), Head(), FrequentClass())).needs == set()
    for step in (GalleryPenalty(), QueryPenalty(), NonLandmarkRule()):
        assert Pipeline((Search(), Vote(), step)).needs == {"non_landmarks"}
    assert Pipeline((Quantile(), Search(), LocalFeatures(), Vote())).needs == {"all_queries", "photos"}
    assert Pipeline((Search(), Vote(), Rerank("r.json"))).needs == {"all_queries", "non_landmarks"}


def test_what_is_missing_is_named(state):
    bare = tuple(replace(m, non_landmarks=None, centers=None) for m in state.models)
    for step, sentence in ((QueryPenalty(), "there are none to compare with"), (Head(), "class centers")):
        with pytest.raises(ValueError, match=sentence):
            Pipeline((Search(), Vote(), step)).answer(bare, state.gallery_labels)
    empty = tuple(replace(m, gallery=m.gallery[:0]) for m in state.models)
    with pytest.raises(ValueError, match="k is .*: give 1 to 0"):
        Pipeline().answer(empty, state.gallery_labels[:0])
