"""Scores lowered by likeness to photos without landmark: 1st place's penalties and 2nd place's rule."""
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.search import nearest
from retrieval.state import Candidates, Matrix, State, Step, with_penalty
from retrieval.steps.concatenate import concatenate, one_a_model

SLOPES = {"type0": 1.5, "type1": 1.5, "type2": 4.0, "type3": 0.5}  # of 2nd place's rules
NEEDED = "this step compares with photos without landmark, but there are none to compare with"


@dataclass(frozen=True)
class GalleryPenalty(Step):
    """Search by cosine - weight × B, B a gallery photo's mean cosine to its k nearest non-landmarks, for each model.

    1st place 2020 (W1; "just B is better than just C"): k 5, weight 1. A photo that looks like no landmark in
    particular (a table, a face) stops attracting queries.
    """

    needs = frozenset({"non_landmarks"})

    k: int = 5
    weight: float = 1.0

    def __call__(self, state: State) -> State:
        return replace(state, models=tuple(
            with_penalty(model, np.float32(self.weight)
                         * similarities(model.gallery, model.non_landmarks, self.k, state.device).mean(axis=1))
            for model in state.models))


@dataclass(frozen=True)
class QueryPenalty(Step):
    """Answers' scores less weight × C, C a query's mean cosine to its k nearest non-landmarks by all models together.

    1st place 2020: k 10, weight 1 on concatenated embeddings (they took 11 and dropped the first, which was the query
    itself where that shows no landmark, and a non-landmark where it shows one; here no query is among them).
    """

    needs = frozenset({"non_landmarks"})

    k: int = 10
    weight: float = 1.0
    lengths: bool = False
    """Join the models' vectors with the lengths that quantile gave them, as 1st place did; false: at length 1."""

    def __call__(self, state: State) -> State:
        c = similarities(*query_sides(state, lengths=self.lengths), self.k, state.device).mean(axis=1)
        return lowered(state, self.weight * c.astype(np.float64))


@dataclass(frozen=True)
class NonLandmarkRule(Step):
    """Answers' scores less an amount where s >= above, s being a query's cosine to its rank-th nearest non-landmark.

    type0: slope × s. type1: the same, and extra where s > extra_above. type2: slope × (s - above). type3: slope × the
    sum of the first `rank` cosines. 2nd place 2020 (generate_submissions.ipynb at 683f021, post_process):
    rank 3, above 0.3, slopes 1.5, 1.5, 4 and 0.5, extra 3 above 0.5 of type1 alone. Which of them was used is not
    known; W2 only says that scores decrease where the third cosine is above 0.3.
    """

    needs = frozenset({"non_landmarks"})

    kind: Literal["type0", "type1", "type2", "type3"] = "type2"
    rank: int = 3
    above: float = 0.3
    slope: float | None = None
    """null: that of its kind."""
    extra_above: float = 0.5
    extra: float | None = None
    """null: that of its kind."""
    weights: list[float] | None = None
    """One a model, for the vectors of all models together; null: all alike. 2nd place: .6, .2, .1 and .1."""

    def __call__(self, state: State) -> State:
        near = similarities(*query_sides(state, self.weights), self.rank, state.device).astype(np.float64)
        return lowered(state, self.amounts(near))

    def amounts(self, near: NDArray[np.float64]) -> NDArray[np.float64]:
        """(Q,) of the first `rank` cosines (Q, R), the greatest first."""
        slope, extra = SLOPES[self.kind] if self.slope is None else self.slope, self.extra
        if extra is None:
            extra = 3.0 if self.kind == "type1" else 0.0
        s = near[:, -1]
        factor = {"type2": s - self.above, "type3": near.sum(axis=1)}.get(self.kind, s)
        return slope * np.where(s >= self.above, factor, 0) + extra * (s > self.extra_above)


def similarities(rows: Matrix, non_landmarks: Matrix | None, k: int, device: str) -> Matrix:
    """float32 (R, min(k, M)): each row's greatest cosines to the non-landmarks. Raises ValueError if there are none."""
    if non_landmarks is None or not len(non_landmarks):
        raise ValueError(f"{NEEDED}: pack a test split that holds some (label -1), or take the step out")
    return nearest(rows, non_landmarks, min(k, len(non_landmarks)), device=device)[0]


def query_sides(state: State, weights: list[float] | None = None, lengths: bool = False
                ) -> tuple[Matrix, Matrix | None]:
    """Queries and non-landmarks in the vectors of all models together, weighted as by `Concatenate`.

    lengths: each vector times the length that it had before the quantile step scaled it to 1. None if a model has no
    non-landmarks. Raises ValueError for weights that are not one a model.
    """
    weights, models = one_a_model(weights, len(state.models)), state.models
    known = [longer(model.non_landmarks, model.non_landmark_lengths if lengths else None) for model in models
             if model.non_landmarks is not None]
    return (concatenate([longer(model.queries, model.query_lengths if lengths else None) for model in models], weights),
            concatenate(known, weights) if len(known) == len(weights) else None)


def longer(rows: Matrix, lengths: Matrix | None) -> Matrix:
    """Rows (R, D) times lengths (R,), if there are some."""
    return rows if lengths is None else rows * lengths[:, None]


def lowered(state: State, amounts: NDArray[np.float64]) -> State:
    """All candidates of query q less amounts[q]."""
    found = state.candidates
    if found is None:
        raise ValueError("a penalty on queries lowers the scores of answers: put vote before it")
    return replace(state, candidates=Candidates(found.labels, found.scores - amounts[:, None]))
