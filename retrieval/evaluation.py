"""How well embeddings answer queries: neighbours, answers and every metric of eval.json."""
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics import Truths, count_relevant, gap, gap_landmark_only, map_at_k, recall_at_k
from retrieval.neighbours import nearest
from retrieval.pipeline import Pipeline, candidates
from retrieval.state import Candidates, CountInliers, State, Vectors
from retrieval.steps.concatenate import concatenate

DEPTH = 100  # neighbours that mAP@100 looks at
FOLDS = 2


@dataclass(frozen=True)
class Questions:
    """Q queries to a gallery of N photos, embedded by each model alike."""
    models: tuple[Vectors, ...]
    gallery_labels: NDArray[np.int64]
    """(N,), -1 for no landmark."""
    truths: Truths
    """Q sets of true labels, empty for no landmark."""
    keys: Sequence[str]
    """Q sample keys: they order equal scores."""
    non_landmark_keys: Sequence[str] = ()
    """M keys of the models' non-landmarks, which may be queries as well: none is compared with itself."""
    inliers: CountInliers | None = None
    """Compares the photos of queries and gallery, for the steps that do; None where they are not at hand."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics and what they rest on."""
    metrics: dict[str, float]
    """gap, gap_landmark_only, recall@1 and map@100, each in [0, 1]."""
    candidates: Candidates
    """Of each query; the first is its answer."""
    neighbour_labels: NDArray[np.int64]
    """(Q, K), K = min(100, N), of the nearest by all models' unchanged embeddings side by side."""


def evaluate(asked: Questions, pipeline: Pipeline = Pipeline(), device: str = "cpu") -> Evaluation:
    """Answer each query from the gallery and measure the answers. A query must not be in the gallery.

    recall@1 and map@100 are those of the embeddings, whatever the steps. Raises ValueError where a step does, an
    empty gallery included.
    """
    queries, gallery = (concatenate([getattr(model, side) for model in asked.models], [1.0] * len(asked.models))
                        if len(asked.models) > 1 else getattr(asked.models[0], side) for side in ("queries", "gallery"))
    _, rows = nearest(queries, gallery, max(1, min(DEPTH, len(gallery))), device=device)
    labels, truths = asked.gallery_labels[rows], asked.truths
    found = answer(asked, pipeline, device)
    ranked = found.answers, found.confidences, truths, asked.keys
    metrics = {"gap": gap(*ranked), "gap_landmark_only": gap_landmark_only(*ranked),
               "recall@1": recall_at_k(labels, truths, 1),
               "map@100": map_at_k(labels, truths, count_relevant(asked.gallery_labels, truths), DEPTH)}
    return Evaluation(metrics, found, labels)


def answer(asked: Questions, pipeline: Pipeline, device: str = "cpu") -> Candidates:
    """The pipeline's candidates; where it compares with non-landmarks, no query is among those that judge it."""
    found = [candidates(state) for state in final_states(asked, pipeline, pipeline.needs_non_landmarks, device)]
    return Candidates(by_half(asked, [part.labels for part in found]), by_half(asked, [part.scores for part in found]))


def first_states(asked: Questions, judged: bool, device: str = "cpu") -> list[State]:
    """What the steps begin with: one state, or two of which each is right for one half of the queries.

    If queries are judged by non-landmarks and some of these are queries, all are cut into two halves by key, and each
    half of the queries is answered with the other half's non-landmarks: leaving out only the query itself would still
    let it lower its own neighbours.
    """
    def first(models: tuple[Vectors, ...]) -> State:
        return State(models, asked.gallery_labels, device, models, keys=asked.keys, inliers=asked.inliers)

    if not judged or not set(asked.keys) & set(asked.non_landmark_keys):
        return [first(asked.models)]
    known = folds(asked.non_landmark_keys)
    known[~np.isin(asked.non_landmark_keys, asked.keys)] = -1  # never asked: judges both halves
    return [first(tuple(_without(model, known == half) for model in asked.models)) for half in range(FOLDS)]


def final_states(asked: Questions, pipeline: Pipeline, judged: bool, device: str = "cpu") -> list[State]:
    """What the steps make of each of the first states."""
    return [pipeline.apply(state) for state in first_states(asked, judged, device)]


def by_half(asked: Questions, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """(Q, …) of what was found in each of the states: each query's row from the state of its half."""
    return parts[0] if len(parts) == 1 else np.stack(parts)[folds(asked.keys), np.arange(len(asked.keys))]


def folds(keys: Sequence[str]) -> NDArray[np.int64]:
    """0 or 1 for each key, by its bytes alone."""
    return np.array([zlib.crc32(key.encode()) % FOLDS for key in keys], np.int64)


def _without(model: Vectors, left_out: NDArray[np.bool_]) -> Vectors:
    return model if model.non_landmarks is None else replace(model, non_landmarks=model.non_landmarks[~left_out])
