"""Steps of 2019 to 2023 against twins written from their formulas in float64, photo by photo."""
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import Pipeline, Vectors
from retrieval.state import Candidates, Neighbors, State
from retrieval.steps import (
    ClassCountPenalty,
    GalleryPenalty,
    HeadNeighbors,
    HeadVote,
    LabelRerank,
    Search,
    SuperGlobal,
    Vote,
)
from retrieval.store import Embeddings, Provenance


def unit64(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def vectors(seed, *shape):  # of positive cosines, as real ones are
    return unit64(np.random.default_rng(seed).normal(size=shape) + 2).astype(np.float32)


@pytest.fixture
def state():
    """9 queries, 40 gallery photos of 6 labels or none; two models with a head of two centers a class."""
    models = tuple(Vectors(vectors(seed, 9, dim), vectors(seed + 10, 40, dim), vectors(seed + 20, 12, dim),
                           vectors(seed + 30, 7, 2, dim) * np.float32(3)) for seed, dim in ((0, 8), (1, 6)))
    return State(models, np.random.default_rng(9).integers(-1, 6, 40), sources=models)


def refined(members, k, beta):
    """Each member's mean with its k nearest others, one by one."""
    out = []
    for i, own in enumerate(members):
        near = sorted((j for j in range(len(members)) if j != i), key=lambda j: -(members[j] @ own))[:k]
        weights = [beta * (members[j] @ own) for j in near]
        out.append((own + sum(w * members[j] for w, j in zip(weights, near))) / (1 + sum(weights)))
    return np.array(out)


@given(st.integers(0, 999), st.integers(1, 30), st.integers(1, 12), st.sampled_from([0.0, 0.15, 1.0]))
def test_super_global_is_that_of_its_authors(seed, m, k, beta):
    query, gallery = vectors(seed, 1, 8), vectors(seed + 1, 30, 8)
    before = Search(m)(State((Vectors(query, gallery),), np.zeros(30, np.int64)))
    found = SuperGlobal(k, beta)(before).neighbors[0]
    rows = before.neighbors[0].rows[0]
    members = refined(gallery[rows].astype(np.float64), k, beta)
    to_query = members @ query[0]
    best = members[np.argsort(-to_query)[:k + 1]].max(axis=0)
    expected = dict(zip(rows, (to_query + members @ best) / 2))
    assert dict(zip(found.rows[0], found.scores[0])) == pytest.approx(expected, abs=1e-5)
    assert (np.diff(found.scores[0]) <= 0).all()


def test_super_global_leaves_empty_places_empty():
    found = Neighbors(np.array([[.9, .5, -np.inf], [-np.inf] * 3], np.float32), np.array([[4, 2, 0], [0, 0, 0]]))
    asked = State((Vectors(vectors(0, 2, 8), vectors(1, 9, 8)),), np.zeros(9, np.int64), neighbors=(found,))
    ranked = SuperGlobal()(asked).neighbors[0]
    assert set(ranked.rows[0, :2]) == {4, 2}
    assert np.isneginf(ranked.scores).tolist() == [[False, False, True], [True] * 3]


@pytest.mark.parametrize("k", [3, 12, 40])
def test_label_rerank_puts_all_photos_of_the_answer_first_and_inserts_those_that_were_not_listed(state, k):
    before = Vote(3, 1.0)(Search(k)(replace(state, models=state.models[:1])))
    found = LabelRerank()(before).neighbors[0]
    model = state.models[0]
    for q, answer in enumerate(before.candidates.answers):
        cosines = model.gallery.astype(np.float64) @ model.queries[q]
        listed = before.neighbors[0].rows[q].tolist()
        same = [row for row in listed if state.gallery_labels[row] == answer]
        rest = [row for row in listed if state.gallery_labels[row] != answer]
        more = sorted((row for row in np.flatnonzero(state.gallery_labels == answer) if row not in listed),
                      key=lambda row: -cosines[row])
        expected = listed if answer == -1 else (same + more[:len(rest)] + rest)[:k]
        assert found.rows[q].tolist() == expected
        assert (np.diff(found.scores[q]) <= 0).all()


def test_the_soft_label_rerank_adds_to_a_landmark_and_takes_from_others(state):
    before = Vote(3, 1.0)(Search(12)(state))
    after = LabelRerank("soft", 1.0, 0.1)(before)
    for listed, found in zip(before.neighbors, after.neighbors):
        for q, answer in enumerate(before.candidates.answers):
            expected = {row: score + (0 if answer == -1 else 1 if state.gallery_labels[row] == answer else -0.1)
                        for row, score in zip(listed.rows[q].tolist(), listed.scores[q].tolist())}
            assert dict(zip(found.rows[q].tolist(), found.scores[q])) == pytest.approx(expected, abs=1e-6)
    assert after.candidates is before.candidates


@pytest.mark.parametrize("how", ["first", "soft"])
def test_labels_may_be_those_of_the_nearest_photo_of_a_store(state, tmp_path, how):
    """A gallery without labels: as if it had been labeled by hand, and the queries answered, by the nearest photo."""
    model, known = state.models[0], vectors(50, 30, 8)
    labels = np.random.default_rng(5).integers(0, 6, 30)
    train = Embeddings(known, [f"t{i}" for i in range(30)], labels, [""] * 30, Provenance("m", "d", "train"))
    train.save(tmp_path / "s")
    before = Search(12)(replace(state, models=(model,), gallery_labels=np.full(40, -1)))
    found = LabelRerank(how, store=str(tmp_path / "s"))(before).neighbors[0]
    near = [(unit64(rows) @ unit64(known).T) for rows in (model.queries, model.gallery)]
    asked, listed, c = labels[near[0].argmax(1)], labels[near[1].argmax(1)], near[1].max(1)
    if how == "first":
        by_hand = replace(before, gallery_labels=listed, candidates=Candidates(asked[:, None], np.ones((9, 1))))
        assert np.array_equal(found.rows, LabelRerank()(by_hand).neighbors[0].rows)
        return
    for q, (rows, scores) in enumerate(zip(before.neighbors[0].rows.tolist(), before.neighbors[0].scores.tolist())):
        expected = {row: score + c[row] * (1 if listed[row] == asked[q] else -0.1) for row, score in zip(rows, scores)}
        assert dict(zip(found.rows[q].tolist(), found.scores[q])) == pytest.approx(expected, abs=1e-5)


def test_a_landmark_of_many_photos_is_searched_with_a_penalty_beside_others(state):
    b = GalleryPenalty(3, 1.0)(state).models[0].penalty
    both = ClassCountPenalty(0.1)(GalleryPenalty(3, 1.0)(state)).models[0].penalty
    labels = state.gallery_labels.tolist()
    expected = [0.1 * np.log(labels.count(label)) if label >= 0 else 0 for label in labels]
    np.testing.assert_allclose(both - b, expected, atol=1e-6)


def test_third_place_of_2021_from_its_formulas(state):
    """cos - B of three, seven neighbors of each run, plus the head's cosine; summed by label with one vote more."""
    steps = GalleryPenalty(3, 1.0), Search(7), HeadNeighbors(1.0), Vote(7, 1.0, signed=True), HeadVote(1.0)
    found = Pipeline(steps).answer(state.models, state.gallery_labels)
    head = np.mean([np.einsum("qd,ckd->qck", unit64(m.queries), unit64(m.centers)).max(2) for m in state.models], 0)
    for q in range(9):
        sums = {}
        for m in state.models:
            b = np.sort(m.gallery.astype(np.float64) @ m.non_landmarks.T, axis=1)[:, -3:].mean(axis=1)
            scores = np.maximum(m.gallery.astype(np.float64) @ m.queries[q], 0) - b
            for j in np.argsort(-scores)[:7]:
                label = int(state.gallery_labels[j])
                sums[label] = sums.get(label, 0) + scores[j] + (head[q, label] if label >= 0 else 0)
        first = int(np.argmax(head[q, :6]))  # class 6 has no gallery photo
        sums[first] = sums.get(first, 0) + head[q, first]
        got = {label: score for label, score in zip(found.labels[q].tolist(), found.scores[q]) if score > -np.inf}
        assert got == pytest.approx(sums, abs=1e-5)
        assert list(got.values()) == sorted(got.values(), reverse=True)


def test_a_vote_of_the_head_is_a_candidate_of_its_own_where_no_neighbor_is_of_the_class(state):
    labels = np.full((9, 1), 99)
    found = HeadVote(2.0)(replace(state, candidates=Candidates(labels, np.full((9, 1), 0.1)))).candidates
    assert found.labels.shape == (9, 2) and (found.labels == 99).sum() == 9 and (found.labels != 99).sum() == 9


@pytest.mark.parametrize("steps, sentence", [
    ((SuperGlobal(), Search(), Vote()), "put it after search and before merge"),
    ((Search(), LabelRerank(), Vote()), "put vote before it"),
    ((HeadNeighbors(), Search(), Vote()), "put search before it"),
    ((Search(), HeadVote(), Vote()), "put vote before it")])
def test_steps_in_a_wrong_order_say_so(state, steps, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pipeline(steps).answer(state.models, state.gallery_labels)
