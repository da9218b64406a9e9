"""Answers step by step: what would be answered after each step of a pipeline, and what the step was worth."""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.evaluation import QuerySet, by_half, first_states
from retrieval.metrics import NO_LANDMARK, Truths, gap, is_true, ranking
from retrieval.pipeline import Pipeline, candidates
from retrieval.state import Candidates, Neighbors, State, Step
from retrieval.steps import NAMES, Search

NEAREST = "nearest neighbors"


@dataclass(frozen=True)
class Snapshot:
    """What Q queries would be answered if the pipeline ended here."""
    step: str
    """Its name in YAML; NEAREST for what the unchanged embeddings say."""
    neighbors: tuple[Neighbors, ...]
    """A list for each model, or one of all."""
    candidates: Candidates


@dataclass(frozen=True)
class StepFigures:
    """What a step changed: its snapshot beside the one before it."""
    step: str
    gap: float
    gain: float
    """GAP less that of the snapshot before; 0 for the first."""
    changed: int
    """Queries whose answer is another one."""
    mended: int
    """Of them, those that became right."""
    spoiled: int
    """Of them, those that were right."""


def trace(queries: QuerySet, pipeline: Pipeline, device: str = "cpu") -> list[Snapshot]:
    """NEAREST, then each step but the first search; the last snapshot holds the pipeline's answers.

    What a step before the search does to embeddings shows in what that search would find in them; what one before
    the vote does to lists of neighbors shows in their landmarks, nearest first. Raises ValueError where a step does.
    """
    first = next((i for i, step in enumerate(pipeline.steps) if isinstance(step, Search)), None)
    if first is None:
        raise ValueError("there are no neighbors to answer by: put search into the pipeline")
    halves = [[_shown(state, pipeline.steps[first]) for state in _states(state, pipeline.steps)]
              for state in first_states(queries, "non_landmarks" in pipeline.needs, device)]
    names = [NEAREST, *(NAMES[type(step)] for step in pipeline.steps)]
    snapshots = [_snapshot(queries, name, parts) for name, *parts in zip(names, *halves, strict=True)]
    return snapshots[:first + 1] + snapshots[first + 2:]


def _states(state: State, steps: tuple[Step, ...]) -> Iterator[State]:
    return accumulate(steps, lambda state, step: step(state), initial=state)


def _shown(state: State, search: Step) -> tuple[tuple[Neighbors, ...], Candidates]:
    """Neighbors and candidates of a state, as far as it has none those that it would come to."""
    neighbors = state.neighbors or search(state).neighbors
    return neighbors, by_nearest(neighbors, state.gallery_labels) if state.candidates is None else candidates(state)


def by_nearest(lists: tuple[Neighbors, ...], gallery_labels: NDArray[np.int64]) -> Candidates:
    """The landmarks of all lists' neighbors in the order of their first, with its score."""
    found = Neighbors(*(np.hstack([getattr(one, name) for one in lists]) for name in ("scores", "rows"))).ranked()
    labels, scores = gallery_labels[found.rows], found.scores.astype(np.float64)
    for j in range(1, labels.shape[1]):
        scores[(labels[:, :j] == labels[:, j:j + 1]).any(axis=1), j] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")
    labels, scores = np.take_along_axis(labels, order, 1), np.take_along_axis(scores, order, 1)
    return Candidates(np.where(np.isneginf(scores), -1, labels), scores)


def _snapshot(queries: QuerySet, step: str, parts: list[tuple[tuple[Neighbors, ...], Candidates]]) -> Snapshot:
    """The snapshot of all queries from that of each half."""
    def joined(halves: Sequence[Any], name: str) -> NDArray[Any]:
        return by_half(queries, [getattr(found, name) for found in halves])

    lists = tuple(Neighbors(joined(halves, "scores"), joined(halves, "rows"),
                            None if halves[0].inliers is None else joined(halves, "inliers"))
                  for halves in zip(*(neighbors for neighbors, _ in parts), strict=True))
    found = [candidates for _, candidates in parts]
    return Snapshot(step, lists, Candidates(joined(found, "labels"), joined(found, "scores")))


def step_figures(snapshots: list[Snapshot], truths: Truths, keys: Sequence[str]) -> list[StepFigures]:
    """Figures of each snapshot, in order."""
    rows: list[StepFigures] = []
    for before, snapshot in zip([snapshots[0], *snapshots], snapshots):
        answers, was = snapshot.candidates.answers, before.candidates.answers
        value = gap(answers, snapshot.candidates.confidences, truths, keys)
        right, was_right = (is_true(labels[:, None], truths)[:, 0] for labels in (answers, was))
        rows.append(StepFigures(snapshot.step, value, value - rows[-1].gap if rows else 0.0,
                                int((answers != was).sum()),
                                int((right & ~was_right).sum()), int((was_right & ~right).sum())))
    return rows


def rank_of_truth(found: Candidates, truths: Truths) -> NDArray[np.int64]:
    """(Q,) place of the first right candidate, from 1; 0 where none is right."""
    right = is_true(found.labels, truths)
    return np.where(right.any(axis=1), right.argmax(axis=1) + 1, 0)


def places(found: Candidates, truths: Truths, keys: Sequence[str]) -> NDArray[np.int64]:
    """(Q,) place of each query's answer among all answers as GAP counts them, from 1; 0 where there is none."""
    order = ranking(found.answers, found.confidences, truths, keys)
    place = np.zeros(len(truths), np.int64)
    place[order] = np.arange(1, len(order) + 1)
    return place


# Which classes are taken for which.

@dataclass(frozen=True)
class Confusion:
    """Queries that show one label and are answered with another."""
    shown: int
    answered: int
    queries: list[int]
    """Their positions, the most confident first."""


def confusions(labels: ArrayLike, scores: ArrayLike, truths: Truths) -> list[Confusion]:
    """All pairs, the most frequent first; equals by their most confident query, then by label.

    Args: labels, int (Q,), -1 for none; scores, float (Q,). A query of several landmarks counts for each of them.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    wrong = ~is_true(labels[:, None], truths)[:, 0] & (labels != NO_LANDMARK)
    by_score = np.argsort(-scores, kind="stable")
    pairs: dict[tuple[int, int], list[int]] = {}
    for i in by_score[wrong[by_score]].tolist():
        for shown in truths[i]:
            pairs.setdefault((shown, int(labels[i])), []).append(i)
    return sorted((Confusion(*pair, queries) for pair, queries in pairs.items()),
                  key=lambda one: (-len(one.queries), -scores[one.queries[0]], one.shown, one.answered))
