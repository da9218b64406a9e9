"""Candidates weighed by the classification head."""
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.state import Candidates, Matrix, State, Step, Vectors, ranked, unit

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
        if any(model.centers is None for model in state.sources):
            raise ValueError("head needs the class centers of a trained head, but there are none: take the step out, "
                             "or answer with a checkpoint that has a head")
        allowed = np.unique(state.gallery_labels[state.gallery_labels >= 0])
        return replace(state, candidates=ranked(self.weigh(state.candidates, state.sources, allowed)))

    def weigh(self, found: Candidates, models: tuple[Vectors, ...], allowed: NDArray[np.int64]) -> Candidates:
        """Candidates with scores as above, in their old order."""
        logs = np.log(np.maximum(found.scores, np.finfo(np.float64).tiny))
        for q in range(0, len(logs), CHUNK):
            rows = slice(q, q + CHUNK)
            heads = np.mean([head_cosines(model.queries[rows], unit(centers)) for model in models
                             if (centers := model.centers) is not None], axis=0)
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


def head_cosines(queries: Matrix, centers: Matrix) -> NDArray[np.float64]:
    """float64 (R, C): cosine of each query (R, D) to the nearest of each class's unit centers (C, K, D)."""
    return np.stack([queries @ centers[:, k].T for k in range(centers.shape[1])]).max(axis=0).astype(np.float64)
