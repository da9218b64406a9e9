"""evaluate() as the composition of its parts, non-landmarks that are queries, ablation, tuning and steps in YAML."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcshard.console import UserError
from retrieval import Pipeline, QuerySet, Vectors, answer, evaluate, gap, read_pipeline
from retrieval.evaluation import details, folds, mean_precision
from retrieval.pipeline import write_pipeline
from retrieval.steps import STEPS, FrequentClass, GalleryPenalty, LabelRerank, Merge, QueryPenalty, Search, Vote
from retrieval.tuning import Difference, Part, ablation, ablation_table, gap_of, halves_of_non_landmarks, tune

CONFIGS = Path(__file__).parent.parent / "configs" / "pipelines"


def directions(*degrees):
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_evaluate_by_hand():
    """By confidence: 0 right (1), no landmark, 1 right (2/3), then a query of 1 that is answered 0."""
    asked = QuerySet((Vectors(directions(1, 2, 87, 10), directions(0, 90, 180)),), np.array([0, 1, -1]),
                      [{0}, set(), {1, 3}, {1}], ["a", "b", "c", "d"])
    found = evaluate(asked, Pipeline((Search(1), Vote(1, 1))))
    assert found.metrics == {
        "gap": pytest.approx((1 + 2 / 3) / 3), "gap_landmark_only": pytest.approx((1 + 1) / 3),
        "recall@1": pytest.approx(2 / 3), "map@100": pytest.approx((1 + 1 + 1 / 2) / 3)}
    assert found.candidates.answers.tolist() == [0, 0, 1, 0]


@pytest.fixture
def asked():
    """60 queries of 9 labels or none to 200 photos; the queries without landmark are the non-landmarks."""
    rng = np.random.default_rng(3)
    centers = rng.normal(size=(10, 8))
    labels, gallery_labels = rng.integers(-1, 9, 60), rng.integers(0, 9, 200)
    queries, gallery = ((centers[shown] + rng.normal(size=(len(shown), 8))).astype(np.float32)
                        for shown in (labels, gallery_labels))
    keys = [f"photo{i}" for i in range(60)]
    none = labels < 0
    return QuerySet((Vectors(queries, gallery, queries[none]),), gallery_labels,
                     [{x} if x >= 0 else set() for x in labels.tolist()], keys,
                     [key for key, is_none in zip(keys, none) if is_none])


def test_equal_scores_count_by_key():
    model = Vectors(directions(0, 0), directions(0))
    for keys, expected in ((["a", "b"], .5), (["b", "a"], .25)):
        assert evaluate(QuerySet((model,), np.array([1]), [{1}, {2}], keys)).metrics["gap"] == expected


def test_no_query_judges_itself_or_its_half(asked):
    """Each half of the queries equals an evaluation that never saw the half's own non-landmarks."""
    pipeline = Pipeline((GalleryPenalty(2), Search(), Vote(), QueryPenalty(3)))
    found, model = answer(asked, pipeline), asked.models[0]
    mine, known = folds(asked.keys), folds(asked.non_landmark_keys)
    assert 0 < mine.sum() < len(mine)
    for half in (0, 1):
        others = Vectors(model.queries, model.gallery, model.non_landmarks[known != half])
        expected = pipeline.answer((others,), asked.gallery_labels)
        np.testing.assert_array_equal(found.scores[mine == half], expected.scores[mine == half])


def test_non_landmarks_that_are_no_queries_judge_all(asked):
    elsewhere = QuerySet(asked.models, asked.gallery_labels, asked.truths, asked.keys,
                          [f"other{key}" for key in asked.non_landmark_keys])
    pipeline = Pipeline((Search(), Vote(), QueryPenalty(3)))
    expected = pipeline.answer(asked.models, asked.gallery_labels)
    np.testing.assert_array_equal(answer(elsewhere, pipeline).scores, expected.scores)


def test_ablation_says_what_each_step_gains(asked):
    pipeline = Pipeline((Search(), Vote(), QueryPenalty(3), FrequentClass(1000)))
    rows = {row.change: row for row in ablation(asked, pipeline)}
    assert list(rows) == ["without Vote", "without QueryPenalty", "without FrequentClass"]
    whole, without = evaluate(asked, pipeline), evaluate(asked, Pipeline((Search(), Vote(), FrequentClass(1000))))
    row = rows["without QueryPenalty"]
    assert (row.gap, row.in_gap.gain) == (without.metrics["gap"], whole.metrics["gap"] - without.metrics["gap"])
    assert row.in_gap.interval[0] <= row.in_gap.gain <= row.in_gap.interval[1] and row.in_map is None
    assert rows["without FrequentClass"].in_gap == Difference(0, (0, 0))


def whole(queries):
    """All of them."""
    return Part(queries, np.full(len(queries.keys), True))


def test_what_re_ranks_neighbors_is_measured_by_their_map(asked):
    pipeline = Pipeline((Search(100), Vote(3, 1.0), LabelRerank()))
    found, less = evaluate(asked, pipeline), evaluate(asked, Pipeline(pipeline.steps[:2]))
    assert less.metrics["map@100"] == pytest.approx(mean_precision(asked, less.ranked_labels))
    assert found.metrics == less.metrics, "eval.json holds the figures of the embeddings"
    gained = mean_precision(asked, found.ranked_labels) - less.metrics["map@100"]
    assert gained > 0 and details(asked, found)["ranked_map@100"] == mean_precision(asked, found.ranked_labels)
    row = {row.change: row for row in ablation(asked, pipeline)}["without LabelRerank"]
    assert row.in_map.gain == pytest.approx(gained) and row.in_map.interval[0] <= gained <= row.in_map.interval[1]
    assert "in map@100 +0." in ablation_table("test", [row])
    assert evaluate(asked, Pipeline((Search(5), Vote()))).ranked_labels is None


def test_half_of_the_non_landmarks_is_tuned_on_and_measured_with_the_rest(asked):
    """`asked` as a split with and without landmark; its landmarks alone as val."""
    shown = np.flatnonzero([len(truth) > 0 for truth in asked.truths])
    val = replace(asked, models=tuple(replace(m, queries=m.queries[shown]) for m in asked.models),
                  truths=[asked.truths[q] for q in shown], keys=[f"val{asked.keys[q]}" for q in shown])
    parts, rest = halves_of_non_landmarks({"val": val, "test": asked}, "val")
    found, found_val = answer(asked, Pipeline()), answer(val, Pipeline())
    none = [not truth for truth in asked.truths]
    for listed, with_val, chosen in ((parts, True, (folds(asked.keys) == 0) & none),
                                     (rest, False, ~((folds(asked.keys) == 0) & none))):
        of_val = np.flatnonzero(np.full(len(val.keys), with_val))
        of_test = np.flatnonzero(chosen)
        assert gap_of(listed, Pipeline()) == gap(
            [*found_val.answers[of_val], *found.answers[of_test]],
            [*found_val.confidences[of_val], *found.confidences[of_test]],
            [*(val.truths[q] for q in of_val), *(asked.truths[q] for q in of_test)],
            [*(val.keys[q] for q in of_val), *(asked.keys[q] for q in of_test)])
    with pytest.raises(ValueError, match="no split but test has queries without landmark"):
        halves_of_non_landmarks({"val": val, "test": asked}, "test")


def test_tuning_never_loses_and_says_every_trial(asked):
    trials = []
    start = Pipeline((Search(8), Vote(1, 1.0), QueryPenalty(3, 0.1)))
    best, value = tune([whole(asked)], start, tried=lambda pipeline, found: trials.append(found))
    found = answer(asked, best)
    assert value == gap(found.answers, found.confidences, asked.truths, asked.keys) == max(trials) > trials[0]


def test_tuning_finds_that_a_model_is_worthless(asked):
    """One list of noise beside one of sense: weights that say so win."""
    good = asked.models[0]
    noise = Vectors(*(np.random.default_rng(i).normal(size=side.shape).astype(np.float32)
                      for i, side in enumerate((good.queries, good.gallery))))
    both = QuerySet((good, noise), asked.gallery_labels, asked.truths, asked.keys)
    start = Pipeline((Search(), Merge(), Vote()))
    best, value = tune([whole(both)], start)
    weights = next(step.weights for step in best.steps if isinstance(step, Merge))
    assert weights[0] > weights[1] and value > evaluate(both, start).metrics["gap"]


def test_details_are_plain_and_agree(asked):
    found = evaluate(asked)
    more = details(asked, found)
    least, most = more["gap_interval_95"]
    assert least < found.metrics["gap"] < most and more["recall@1"] == found.metrics["recall@1"]
    assert more["accuracy@1"] <= more["accuracy@3"] and len(more["worst_classes"]) == 9


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_reads_and_writes_back(path, tmp_path):
    (tmp_path / "again.yaml").write_text(write_pipeline(read_pipeline(path)))
    assert read_pipeline(tmp_path / "again.yaml") == read_pipeline(path)


@given(st.lists(st.sampled_from(sorted(set(STEPS) - {"vote", "rerank"})), max_size=5))
def test_every_step_but_that_of_a_file_may_stand_without_numbers(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("steps") / "a.yaml"
    path.write_text("\n".join(f"- {name}" for name in [*names, "vote"]))
    assert read_pipeline(path).steps == (*(STEPS[name]() for name in names), Vote())


@pytest.mark.parametrize("text, sentence", [
    ("- vote: {powr: 3}", "vote: Option 'powr' is not accepted: its numbers are k, power, signed"),
    ("- vote: {k: a}", "k.*Got value: a"), ("- vote: {k: 0}", "k is 0: give at least 1"),
    ("- vote: {signed: true}", "power is 8.0, and signed is true: give power 1"),
    ("- vote: 3", "vote has 3: give its numbers by name"), ("- voe", "'voe' is no step: give one of concatenate"),
    ("- [1]", r"\[1\] is no step: give one of"), ("3", "holds no list of steps but 3"), ("a: : b", "is no YAML"),
    ("- search", "has no vote, and so finds no answers: add one")])
def test_wrong_steps_are_one_sentence(tmp_path, text, sentence):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence) as refusal:
        read_pipeline(tmp_path / "a.yaml")
    assert "\n" not in str(refusal.value)
