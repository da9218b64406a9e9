"""How well embeddings answer queries: every metric of eval.json and eval-details.json."""
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcshard.console import progress
from retrieval.metrics import (
    NO_LANDMARK,
    Truths,
    answers_at_far,
    average_precisions,
    count_relevant,
    gap,
    gap_landmark_only,
    interval,
    is_true,
    map_at_k,
    recall_at_k,
    resampled_gaps,
)
from retrieval.pipeline import Pipeline, candidates
from retrieval.search import nearest
from retrieval.state import Candidates, CountInliers, Matrix, State, Vectors
from retrieval.steps.concatenate import concatenate

DEPTH = 100  # neighbors that mAP@100 looks at
FOLDS = 2
WORST = 10  # classes in eval-details.json


@dataclass(frozen=True)
class QuerySet:
    """Q queries to a gallery of N photos, embedded by one or several models."""
    models: tuple[Vectors, ...]
    gallery_labels: NDArray[np.int64]
    """(N,), -1 for no landmark."""
    truths: Truths
    """Q sets of true labels, empty for no landmark."""
    keys: Sequence[str]
    """Q sample keys: they order equal scores."""
    non_landmark_keys: Sequence[str] = ()
    """M keys of the models' non-landmarks. They may be queries as well: none is compared with itself."""
    inliers: CountInliers | None = None
    """Compares the photos of queries and gallery; None where there are none."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics, and the answers and neighbors that they are computed from."""
    metrics: dict[str, float]
    """gap, gap_landmark_only, recall@1 and map@100, each in [0, 1]."""
    candidates: Candidates
    """Of each query; the first is its answer."""
    neighbor_labels: NDArray[np.int64]
    """(Q, K), K = min(100, N), of the nearest by all models' unchanged embeddings side by side."""
    ranked_labels: NDArray[np.int64] | None
    """(Q, K), likewise of the pipeline's own list, see `answer_and_rank`."""


def evaluate(queries: QuerySet, pipeline: Pipeline = Pipeline(), device: str = "cpu") -> Evaluation:
    """Answer each query from the gallery and measure the answers. A query must not be in the gallery.

    recall@1 and map@100 are those of the embeddings, whatever the steps. Raises ValueError where a step does, an
    empty gallery included.
    """
    labels, truths = neighbor_labels(queries, device), queries.truths
    found, ranked_labels = answer_and_rank(queries, pipeline, device)
    ranked = found.answers, found.confidences, truths, queries.keys
    metrics = {"gap": gap(*ranked), "gap_landmark_only": gap_landmark_only(*ranked),
               "recall@1": recall_at_k(labels, truths, 1),
               "map@100": mean_precision(queries, labels)}
    return Evaluation(metrics, found, labels, ranked_labels)


def neighbor_labels(queries: QuerySet, device: str = "cpu") -> NDArray[np.int64]:
    """(Q, min(100, N)): labels of each query's nearest gallery rows by all models' embeddings side by side."""
    models = queries.models
    asked, gallery = ((models[0].queries, models[0].gallery) if len(models) == 1 else
                      (concatenate([getattr(model, side) for model in models], [1.0] * len(models))
                       for side in ("queries", "gallery")))
    _, rows = nearest(asked, gallery, max(1, min(DEPTH, len(gallery))), device=device)
    return queries.gallery_labels[rows]


def answer(queries: QuerySet, pipeline: Pipeline, device: str = "cpu") -> Candidates:
    """The pipeline's candidates. A step that compares with non-landmarks never compares a query with itself."""
    return answer_and_rank(queries, pipeline, device)[0]


def answer_and_rank(queries: QuerySet, pipeline: Pipeline, device: str = "cpu"
                    ) -> tuple[Candidates, NDArray[np.int64] | None]:
    """`answer`, and the labels (Q, K), best first, of the neighbors that the steps leave, -1 for none.

    Those are what a retrieval returns. None where they are of several models, or fewer than min(100, N).
    """
    states = final_states(queries, pipeline, "non_landmarks" in pipeline.needs, device)
    found = [candidates(state) for state in states]
    both = Candidates(by_half(queries, [part.labels for part in found]),
                      by_half(queries, [part.scores for part in found]))
    lists = [state.neighbors[0] for state in states if len(state.neighbors) == 1]
    if len(lists) < len(states) or lists[0].rows.shape[1] < min(DEPTH, len(queries.gallery_labels)):
        return both, None
    return both, by_half(queries, [np.where(listed.scores > -np.inf, queries.gallery_labels[listed.rows], NO_LANDMARK)
                                   for listed in lists])


def mean_precision(queries: QuerySet, labels: NDArray[np.int64]) -> float:
    """mAP@100 of neighbors by their labels (Q, K), best first."""
    return map_at_k(labels, queries.truths, count_relevant(queries.gallery_labels, queries.truths), DEPTH)


def precisions(queries: QuerySet, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP@100 of each query that has a gallery photo of its landmark, by the labels of its neighbors (Q, K)."""
    return average_precisions(labels, queries.truths, count_relevant(queries.gallery_labels, queries.truths), DEPTH)


def first_states(queries: QuerySet, non_landmarks: bool, device: str = "cpu") -> list[State]:
    """What the steps begin with: one state, or two, each of them valid for one half of the queries.

    non_landmarks: whether a step compares with those. If some of them are queries themselves, all queries are cut
    into two halves by key, and each half is answered with the non-landmarks of the other half: leaving out only the
    query itself would still let it lower the scores of its own neighbors.
    """
    def first(models: tuple[Vectors, ...]) -> State:
        return State(models, queries.gallery_labels, device, models, keys=queries.keys, inliers=queries.inliers)

    if not non_landmarks or not set(queries.keys) & set(queries.non_landmark_keys):
        return [first(queries.models)]
    known = folds(queries.non_landmark_keys)
    known[~np.isin(queries.non_landmark_keys, queries.keys)] = -1  # no query: compared with both halves
    return [first(tuple(_without(model, known == half) for model in queries.models)) for half in range(FOLDS)]


def final_states(queries: QuerySet, pipeline: Pipeline, non_landmarks: bool, device: str = "cpu") -> list[State]:
    """What the steps make of each of the first states."""
    return [pipeline.apply(state) for state in first_states(queries, non_landmarks, device)]


def by_half(queries: QuerySet, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """(Q, …) of what was found in each of the states: each query's row from the state of its half."""
    return parts[0] if len(parts) == 1 else np.stack(parts)[folds(queries.keys), np.arange(len(queries.keys))]


def folds(keys: Sequence[str]) -> NDArray[np.int64]:
    """0 or 1 for each key, by its bytes alone."""
    return np.array([zlib.crc32(key.encode()) % FOLDS for key in keys], np.int64)


def _without(model: Vectors, left_out: NDArray[np.bool_]) -> Vectors:
    return model if model.non_landmarks is None else replace(model, non_landmarks=model.non_landmarks[~left_out])


# What eval.json has no room for: intervals, longer lists, thresholds, classes.

def details(queries: QuerySet, found: Evaluation) -> dict[str, Any]:
    """What eval-details.json holds of a split, ready for JSON; labels are the dataset's."""
    answers = found.candidates.answers, found.candidates.confidences, queries.truths
    figures = per_class(answers[0], queries.truths)
    return {"gap_interval_95": interval(resampled_gaps(*answers, keys=queries.keys)),
            **{f"recall@{k}": recall_at_k(found.neighbor_labels, queries.truths, k) for k in (1, 5, 10)},
            **{f"accuracy@{k}": recall_at_k(found.candidates.labels, queries.truths, k) for k in (1, 3)},
            **({} if found.ranked_labels is None else {"ranked_map@100": mean_precision(queries, found.ranked_labels)}),
            **{f"right_at_far_{far}": answers_at_far(*answers, far) for far in (0.01, 0.1)},
            "mean_class_recall": mean_recall(figures),
            "worst_classes": [{"label": figure.label, "queries": figure.queries, "right": figure.right,
                               "wrong": figure.wrong} for figure in worst(figures, WORST)]}


@dataclass(frozen=True)
class ClassFigures:
    """How often a label is shown, found and taken for another."""
    label: int
    queries: int
    """That show it; a query of several landmarks counts for each."""
    right: int
    """Of them, answered with one of the query's labels."""
    wrong: int
    """Queries answered with it that do not show it."""

    @property
    def recall(self) -> float:
        return self.right / self.queries if self.queries else 0.0


def per_class(labels: ArrayLike, truths: Truths) -> list[ClassFigures]:
    """Figures of each label that a query shows or is answered with, by label. labels: int (Q,), -1 for no answer."""
    labels = np.asarray(labels)
    right = is_true(labels[:, None], truths)[:, 0]
    queries: dict[int, int] = {}
    answered: dict[int, int] = {}
    for truth, hit in zip(truths, right.tolist()):
        for label in truth:
            queries[label] = queries.get(label, 0) + 1
            answered[label] = answered.get(label, 0) + hit
    missed, counts = np.unique(labels[~right & (labels != NO_LANDMARK)], return_counts=True)
    wrong = dict(zip(missed.tolist(), counts.tolist()))
    return [ClassFigures(label, queries.get(label, 0), answered.get(label, 0), wrong.get(label, 0))
            for label in sorted(queries.keys() | wrong.keys())]


def worst(figures: list[ClassFigures], n: int) -> list[ClassFigures]:
    """The n classes of least recall among those with queries; of equals those with more queries, then by label."""
    with_queries = [figure for figure in figures if figure.queries]
    return sorted(with_queries, key=lambda figure: (figure.recall, -figure.queries, figure.label))[:n]


def mean_recall(figures: list[ClassFigures]) -> float:
    """Recall averaged over the classes that have queries, each with equal weight; 0.0 if there are none."""
    recalls = [figure.recall for figure in figures if figure.queries]
    return float(np.mean(recalls)) if recalls else 0.0


# How far apart right and wrong neighbors are: what decides whether one threshold can tell them.

def own_and_other(queries: Matrix, labels: NDArray[np.int64], gallery: Matrix, gallery_labels: NDArray[np.int64],
                  chunk: int = 8192) -> tuple[Matrix, Matrix]:
    """Each query's greatest inner product with a gallery row of its label, and with one of another, float32 (Q,) each.

    -inf where there is no such row. queries (Q, D), gallery (N, D); labels (Q,) and (N,), -1 is no label and never
    equal. Memory: about 10 * Q * chunk bytes.
    """
    own, other = np.full((2, len(queries)), -np.inf, np.float32)
    for start in progress(range(0, len(gallery), chunk), unit="parts", what="compare landmarks"):
        part = slice(start, start + chunk)
        products = queries @ gallery[part].T
        same = (labels[:, None] == gallery_labels[part]) & (labels >= 0)[:, None]
        own = np.maximum(own, products.max(1, where=same, initial=-np.inf))
        other = np.maximum(other, products.max(1, where=~same, initial=-np.inf))
    return own, other
