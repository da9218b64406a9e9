"""Vectors drawn toward their neighbors in the gallery."""
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from arcshard.console import progress
from retrieval.search import nearest
from retrieval.state import Matrix, State, Step, unit

CHUNK = 4096


@dataclass(frozen=True)
class QueryExpansion(Step):
    """A query becomes itself plus its k nearest gallery vectors, each times max(cosine, 0)^alpha, at length 1.

    Alpha query expansion: Radenović et al. 2018, arXiv 1711.02512, section 3.4.
    """

    k: int = 5
    alpha: float = 3.0

    def __call__(self, state: State) -> State:
        def expand(queries: Matrix, gallery: Matrix) -> Matrix:
            scores, rows = nearest(queries, gallery, min(self.k, len(gallery)), device=state.device)
            weights = np.maximum(scores, 0).astype(np.float64) ** self.alpha
            return unit(queries + weighted_sum(gallery, rows, weights))
        return replace(state, models=tuple(replace(model, queries=expand(model.queries, model.gallery))
                                           for model in state.models))


@dataclass(frozen=True)
class DatabaseAugmentation(Step):
    """A gallery vector becomes the sum of its k nearest, itself the first, weighted 1 down to 10^-decay, at length 1.

    2nd place 2020 (683f021): k 10, np.logspace(0, -1.5, 10). Searches the gallery in itself: N² × D operations.
    """

    k: int = 10
    decay: float = 1.5

    def __call__(self, state: State) -> State:
        def augment(gallery: Matrix) -> Matrix:
            _, rows = nearest(gallery, gallery, min(self.k, len(gallery)), device=state.device)
            return unit(weighted_sum(gallery, rows, np.logspace(0, -self.decay, self.k)[:rows.shape[1]]))
        return replace(state, models=tuple(replace(model, gallery=augment(model.gallery)) for model in state.models))


def weighted_sum(gallery: Matrix, rows: NDArray[np.int64], weights: NDArray[np.float64]) -> Matrix:
    """float32 (R, D): sum over j of weights[(r,) j] × gallery[rows[r, j]]."""
    weights = np.broadcast_to(weights, rows.shape).astype(np.float32)
    parts = [np.einsum("rk,rkd->rd", weights[r:r + CHUNK], gallery[rows[r:r + CHUNK]])
             for r in progress(range(0, len(rows), CHUNK), unit="parts", what="average neighbors")]
    return np.concatenate(parts) if parts else np.zeros((0, gallery.shape[1]), np.float32)
