"""Neighbors and candidates weighed by the classification head."""
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from arcshard.console import progress
from retrieval.state import Candidates, Matrix, State, Step, ranked, unit

CHUNK = 1024  # queries whose cosines to all classes are in memory at a time: 0.3 GB for 81,313 classes


@dataclass(frozen=True)
class Head(Step):
    """Scores become log(score) + power × log(head), head the query's cosine to the class's center, mean over models.

    Only the `top` classes of the head among the gallery's count; another is worth `floor`. 3rd place 2020 (a7947ff):
    power 10 in its notebook and 12 in its write-up, top 5, floor 1e-8, classes of the private train set only. As
    logarithms, since the product falls to 1e-84.
    """

    power: float = 10.0
    top: int = 5
    floor: float = 1e-8

    def __call__(self, state: State) -> State:
        if state.candidates is None:
            raise ValueError("head weighs candidates: put vote before it")
        return replace(state, candidates=ranked(self.weigh(state.candidates, state)))

    def weigh(self, found: Candidates, state: State) -> Candidates:
        """Candidates with scores as above, in their old order."""
        logs, allowed = np.log(np.maximum(found.scores, np.finfo(np.float64).tiny)), classes_of(state)
        for rows, heads in by_chunk(state, "head"):
            logs[rows] += self.power * np.log(self.limited(heads, found.labels[rows], allowed))
        return Candidates(found.labels, np.where(np.isneginf(found.scores), -np.inf, logs))

    def limited(self, heads: NDArray[np.float64], labels: NDArray[np.int64],
                allowed: NDArray[np.int64]) -> NDArray[np.float64]:
        """(Q, L): the head's cosines (Q, C) at the labels, `floor` for what is not among the first `top` allowed."""
        among = np.full(heads.shape, -np.inf)
        among[:, allowed] = heads[:, allowed]
        top = min(self.top, len(allowed))
        least = np.sort(among, axis=1)[:, -top][:, None] if top else np.inf
        at = np.take_along_axis(among, np.maximum(labels, 0), 1)
        return np.where((at >= least) & (labels >= 0), np.maximum(at, self.floor), self.floor)


@dataclass(frozen=True)
class HeadNeighbors(Step):
    """A neighbor's score gains weight × the head's cosine of its class, mean over models, and the list is ranked anew.

    3rd place 2021 (arXiv 2110.02794, Kaggle discussion 275870): weight 1, on seven neighbors, their B of three
    non-landmarks taken off. A gallery photo without landmark gains nothing.
    """

    weight: float = 1.0

    def __call__(self, state: State) -> State:
        if not state.neighbors:
            raise ValueError("head_neighbors weighs neighbors: put search before it")
        labels = [state.gallery_labels[found.rows] for found in state.neighbors]
        scores = [found.scores.copy() for found in state.neighbors]
        for rows, heads in by_chunk(state, "head_neighbors"):
            for of_list, listed in zip(scores, labels):
                at = np.take_along_axis(heads, np.maximum(listed[rows], 0), 1)
                of_list[rows] += (self.weight * np.where(listed[rows] >= 0, at, 0)).astype(np.float32)
        return replace(state, neighbors=tuple(replace(found, scores=of_list).ranked()
                                              for found, of_list in zip(state.neighbors, scores)))


@dataclass(frozen=True)
class HeadVote(Step):
    """The head's best class gets one vote more: weight × its cosine, mean over models.

    3rd place 2021, as above: weight 1. Theirs may answer with any class of the head, this one with the gallery's only.
    """

    weight: float = 1.0

    def __call__(self, state: State) -> State:
        if state.candidates is None:
            raise ValueError("head_vote adds to candidates: put vote before it")
        allowed, found = classes_of(state), state.candidates
        if not len(allowed):
            return state
        best, votes = np.empty(len(found.labels), np.int64), np.empty(len(found.labels))
        for rows, heads in by_chunk(state, "head_vote"):
            at = heads[:, allowed].argmax(axis=1)
            best[rows], votes[rows] = allowed[at], self.weight * heads[np.arange(len(at)), allowed[at]]
        known = (found.labels == best[:, None]) & (found.scores > -np.inf)
        scores = np.column_stack([found.scores + known * votes[:, None], np.where(known.any(1), -np.inf, votes)])
        return replace(state, candidates=ranked(Candidates(np.column_stack([found.labels, best]), scores)))


def classes_of(state: State) -> NDArray[np.int64]:
    """The classes that the gallery has, ascending."""
    return np.unique(state.gallery_labels[state.gallery_labels >= 0])


def by_chunk(state: State, step: str) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The head's cosines (R, C) of some queries after the other, mean over models.

    Raises ValueError if a model has no head.
    """
    heads = [(model.queries, unit(model.centers)) for model in state.sources if model.centers is not None]
    if len(heads) < len(state.sources):
        raise ValueError(f"{step} needs the class centers of a trained head, but there are none: take the step out, "
                         "or answer with a checkpoint that has a head")
    for q in progress(range(0, len(heads[0][0]), CHUNK), unit="parts", what=step):
        rows = slice(q, q + CHUNK)
        yield rows, np.mean([head_cosines(queries[rows], centers) for queries, centers in heads], axis=0)


def head_cosines(queries: Matrix, centers: Matrix) -> NDArray[np.float64]:
    """float64 (R, C): cosine of each query (R, D) to the nearest of each class's unit centers (C, K, D)."""
    return np.stack([queries @ centers[:, k].T for k in range(centers.shape[1])]).max(axis=0).astype(np.float64)
