"""Neighbors ranked anew by vectors that are refined among themselves: SuperGlobal, Shao et al. 2023."""
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from arcshard.console import progress
from retrieval.state import Matrix, Neighbors, State, Step, own_lists


@dataclass(frozen=True)
class SuperGlobal(Step):
    """Each list is ranked anew by vectors refined among its own M members, M being the k of the search.

    SuperGlobal, arXiv 2308.06954 (ShihaoShao-GH/SuperGlobal 6db11a7, modules/reranking): M 400, k 9, beta 0.15. It
    needs no labels and no training. A penalty of the search only decides who is listed. Takes Q × M² × D operations.
    """

    k: int = 9
    """Nearest members that refine one, and, with the best itself, those that expand the query."""
    beta: float = 0.15
    """How much a member's neighbors count beside itself."""

    def __call__(self, state: State) -> State:
        return replace(state, neighbors=tuple(self.reranked(found, model.queries, model.gallery)
                                              for found, model in own_lists(state, "super_global")))

    def reranked(self, found: Neighbors, queries: Matrix, gallery: Matrix) -> Neighbors:
        """One model's lists; a place that holds no neighbor stays one."""
        scores = np.full(found.scores.shape, -np.inf, np.float32)
        for q, there in enumerate(progress(found.scores > -np.inf, unit="queries", what="super_global")):
            if there.any():
                scores[q, there] = self.scores(queries[q], gallery[found.rows[q, there]])
        return replace(found, scores=scores).ranked()

    def scores(self, query: Matrix, members: NDArray[np.floating]) -> Matrix:
        """(M,) of a query (D,) and its neighbors (M, D), M > 0.

        A member becomes the mean of itself, weight 1, and its k nearest, weights beta × cosine. The score is half its
        product with the query, half that with the componentwise maximum of the k + 1 members nearest to the query, all
        of them refined.
        """
        members = members.astype(np.float32)
        weights = self.beta * members @ members.T
        np.fill_diagonal(weights, -np.inf)
        k = min(self.k, len(members) - 1)
        others = np.argpartition(-weights, max(k - 1, 0), axis=1)[:, :k]
        near = np.take_along_axis(weights, others, 1)
        refined = members + np.einsum("mk,mkd->md", near, members[others])
        refined /= 1 + near.sum(axis=1, keepdims=True)
        to_query = refined @ query
        best = np.argsort(-to_query, kind="stable")[:self.k + 1]
        scores: Matrix = (to_query + refined @ refined[best].max(axis=0)) / 2
        return scores
