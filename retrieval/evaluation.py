"""How well embeddings answer queries: neighbors, answers and every metric of eval.json."""
import csv
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcshard.console import UserError
from retrieval.metrics import (
    NO_LANDMARK,
    Truths,
    count_relevant,
    gap,
    gap_landmark_only,
    is_true,
    map_at_k,
    recall_at_k,
)
from retrieval.pipeline import Pipeline, candidates
from retrieval.search import nearest
from retrieval.state import Candidates, CountInliers, State, Vectors
from retrieval.steps.concatenate import concatenate

# What a code contest on Kaggle hands out: the sample submission, and a train set that tells which run this is.

PUBLIC_TRAIN = 1_580_470  # photos of Google Landmark Recognition 2020 that anyone may see
TEST_PHOTOS = 117_577  # of Google Landmarks v2, as https://github.com/cvdfoundation/google-landmark counts them
RERUN_HOURS = 12  # that Kaggle gives the hidden rerun


def read_sample(path: Path) -> list[str]:
    """Ids of a sample_submission.csv in its order. Raises UserError for another table and for an id twice."""
    with open(path, newline="", encoding="utf-8-sig") as f:
        rows = csv.DictReader(f)
        if list(rows.fieldnames or []) != ["id", "landmarks"]:
            raise UserError(f"a sample submission has the columns id,landmarks; {path} has "
                            f"{','.join(rows.fieldnames or []) or 'none'}: give Kaggle's sample_submission.csv")
        ids = [row["id"] for row in rows]
    twice = next((id for id, times in Counter(ids).items() if times > 1), None)
    if twice is not None:
        raise UserError(f"a sample submission has one row an image; {path} has {twice} more than once: "
                        "give Kaggle's file as it came")
    return ids


def in_sample_order(ids: Sequence[str], sample: Sequence[str], path: Path) -> list[int]:
    """Place in `ids` of each id of the sample. Raises UserError unless both hold the same ids, each once."""
    place = {id: i for i, id in enumerate(ids)}
    missing, extra = [id for id in sample if id not in place], place.keys() - set(sample)
    if missing or extra:
        one = missing[0] if missing else min(extra)
        raise UserError(f"a submission answers exactly the ids of {path}, but {len(missing):,} of them have no photo "
                        f"and {len(extra):,} photos are not among them, such as {one}: check the folder of photos")
    return [place[id] for id in sample]


def is_public_train(path: Path) -> bool:
    """Whether a train.csv is the public one: the hidden rerun mounts a smaller train set under the same name."""
    with open(path, "rb") as f:
        return sum(1 for _ in f) - 1 == PUBLIC_TRAIN


def budget(photos: int, seconds: float) -> str:
    """Sentence on the rate of answering so many photos (at least 1), and on the contest's time at that rate."""
    hours = TEST_PHOTOS * seconds / photos / 3600
    limit = f"of its {RERUN_HOURS} h" if hours <= RERUN_HOURS else f"and it gives {RERUN_HOURS} h"
    return (f"{photos:,} photos in {seconds:,.1f} s: {photos / seconds:,.1f}/s; the contest's {TEST_PHOTOS:,} photos "
            f"would take {hours:,.1f} h {limit}")


# How far apart right and wrong neighbors are: what decides whether one threshold can tell them.

FloatArray = NDArray[np.float32]
Labels = NDArray[np.int64]


def own_and_other(queries: FloatArray, labels: Labels, gallery: FloatArray, gallery_labels: Labels,
                  chunk: int = 8192) -> tuple[FloatArray, FloatArray]:
    """Each query's greatest inner product with a gallery row of its label, and with one of another, float32 (Q,) each.

    -inf where there is no such row. queries (Q, D), gallery (N, D); labels (Q,) and (N,), -1 is no label and never
    equal. Memory: about 10 * Q * chunk bytes.
    """
    own, other = np.full((2, len(queries)), -np.inf, np.float32)
    for start in range(0, len(gallery), chunk):
        part = slice(start, start + chunk)
        products = queries @ gallery[part].T
        same = (labels[:, None] == gallery_labels[part]) & (labels >= 0)[:, None]
        own = np.maximum(own, products.max(1, where=same, initial=-np.inf))
        other = np.maximum(other, products.max(1, where=~same, initial=-np.inf))
    return own, other


# How each class fares: its queries, how many are answered rightly, how often it is a wrong answer.

@dataclass(frozen=True)
class ClassFigures:
    """One label's part in the answers."""
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
    """A row for each label that some query shows or is answered with, by label. labels: int (Q,), -1 for none."""
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
    """The n classes of least recall, of equals those with more queries, then by label; without query: left out."""
    asked = [figure for figure in figures if figure.queries]
    return sorted(asked, key=lambda figure: (figure.recall, -figure.queries, figure.label))[:n]


def mean_recall(figures: list[ClassFigures]) -> float:
    """Recall averaged over the classes with a query, each alike however many it has; 0.0 for none."""
    recalls = [figure.recall for figure in figures if figure.queries]
    return float(np.mean(recalls)) if recalls else 0.0


DEPTH = 100  # neighbors that mAP@100 looks at
FOLDS = 2


@dataclass(frozen=True)
class QuerySet:
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
    neighbor_labels: NDArray[np.int64]
    """(Q, K), K = min(100, N), of the nearest by all models' unchanged embeddings side by side."""


def evaluate(asked: QuerySet, pipeline: Pipeline = Pipeline(), device: str = "cpu") -> Evaluation:
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


def answer(asked: QuerySet, pipeline: Pipeline, device: str = "cpu") -> Candidates:
    """The pipeline's candidates; where it compares with non-landmarks, no query is among those that judge it."""
    found = [candidates(state) for state in final_states(asked, pipeline, pipeline.needs_non_landmarks, device)]
    return Candidates(by_half(asked, [part.labels for part in found]), by_half(asked, [part.scores for part in found]))


def first_states(asked: QuerySet, judged: bool, device: str = "cpu") -> list[State]:
    """What the steps begin with: one state, or two of which each is right for one half of the queries.

    If queries are judged by non-landmarks and some of these are queries, all are cut into two halves by key, and each
    half of the queries is answered with the other half's non-landmarks: leaving out only the query itself would still
    let it lower its own neighbors.
    """
    def first(models: tuple[Vectors, ...]) -> State:
        return State(models, asked.gallery_labels, device, models, keys=asked.keys, inliers=asked.inliers)

    if not judged or not set(asked.keys) & set(asked.non_landmark_keys):
        return [first(asked.models)]
    known = folds(asked.non_landmark_keys)
    known[~np.isin(asked.non_landmark_keys, asked.keys)] = -1  # never asked: judges both halves
    return [first(tuple(_without(model, known == half) for model in asked.models)) for half in range(FOLDS)]


def final_states(asked: QuerySet, pipeline: Pipeline, judged: bool, device: str = "cpu") -> list[State]:
    """What the steps make of each of the first states."""
    return [pipeline.apply(state) for state in first_states(asked, judged, device)]


def by_half(asked: QuerySet, parts: list[NDArray[Any]]) -> NDArray[Any]:
    """(Q, …) of what was found in each of the states: each query's row from the state of its half."""
    return parts[0] if len(parts) == 1 else np.stack(parts)[folds(asked.keys), np.arange(len(asked.keys))]


def folds(keys: Sequence[str]) -> NDArray[np.int64]:
    """0 or 1 for each key, by its bytes alone."""
    return np.array([zlib.crc32(key.encode()) % FOLDS for key in keys], np.int64)


def _without(model: Vectors, left_out: NDArray[np.bool_]) -> Vectors:
    return model if model.non_landmarks is None else replace(model, non_landmarks=model.non_landmarks[~left_out])
