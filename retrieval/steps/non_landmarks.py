"""Scores lowered by likeness to photos without landmark: 1st place's penalties and 2nd place's rule."""
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.search import nearest
from retrieval.state import Candidates, Matrix, State, Step
from retrieval.steps.concatenate import concatenate

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
            replace(model, penalty=np.float32(self.weight)
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

    def __call__(self, state: State) -> State:
        c = similarities(*query_sides(state), self.k, state.device).mean(axis=1)
        return lowered(state, self.weight * c.astype(np.float64))


@dataclass(frozen=True)
class NonLandmarkRule(Step):
    """Answers' scores less slope × (s - above) where s > above, and extra more where s > extra_above.

    s is the query's cosine to its rank-th nearest non-landmark by all models together. 2nd place 2020, rule (a) of
    W2 and its generate_submissions.ipynb at 683f021: rank 3, above 0.3, slope 4, extra 3 above 0.5.
    """

    needs = frozenset({"non_landmarks"})

    rank: int = 3
    above: float = 0.3
    slope: float = 4.0
    extra_above: float = 0.5
    extra: float = 3.0

    def __call__(self, state: State) -> State:
        s = similarities(*query_sides(state), self.rank, state.device)[:, -1].astype(np.float64)
        return lowered(state, self.slope * np.maximum(s - self.above, 0) + self.extra * (s > self.extra_above))


def similarities(rows: Matrix, non_landmarks: Matrix | None, k: int, device: str) -> Matrix:
    """float32 (R, min(k, M)): each row's greatest cosines to the non-landmarks. Raises ValueError if there are none."""
    if non_landmarks is None or not len(non_landmarks):
        raise ValueError(f"{NEEDED}: pack a test split that holds some (label -1), or take the step out")
    return nearest(rows, non_landmarks, min(k, len(non_landmarks)), device=device)[0]


def query_sides(state: State) -> tuple[Matrix, Matrix | None]:
    """Queries and non-landmarks in the vectors of all models together; None if a model has no non-landmarks."""
    alike = [1.0] * len(state.models)
    known = [model.non_landmarks for model in state.models if model.non_landmarks is not None]
    return (concatenate([model.queries for model in state.models], alike),
            concatenate(known, alike) if len(known) == len(alike) else None)


def lowered(state: State, amounts: NDArray[np.float64]) -> State:
    """All candidates of query q less amounts[q]."""
    found = state.candidates
    if found is None:
        raise ValueError("a penalty on queries lowers the scores of answers: put vote before it")
    return replace(state, candidates=Candidates(found.labels, found.scores - amounts[:, None]))
