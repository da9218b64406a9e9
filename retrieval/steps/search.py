"""From embeddings to lists of neighbors."""
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retrieval.search import approximate, nearest
from retrieval.state import Matrix, Neighbors, State, Step, Vectors


@dataclass(frozen=True)
class Search(Step):
    """Each query's k best gallery rows by max(cosine, 0) less the row's penalty, for each model.

    The penalty is one more dimension, so that the whole gallery is ranked by the difference and not a shortlist of
    it. 1st place 2020 limits cosines to [0, 1] before; here a row of negative cosine counts as 0 only once listed,
    which differs where a query's k-th best has a negative cosine, and is worth nothing then.
    """

    k: int = 5
    method: Literal["exact", "ivf", "hnsw"] = "exact"
    """exact: every product; ivf and hnsw: an index of FAISS, faster and not complete (docs/answers.md)."""
    effort: int = 64
    """Of ivf and hnsw: lists visited, or candidates kept; more finds more and takes longer."""

    def __call__(self, state: State) -> State:
        return replace(state, neighbors=tuple(self.search(model, state.device) for model in state.models))

    def search(self, model: Vectors, device: str) -> Neighbors:
        """Lists of min(k, N) of one model; an empty gallery is a ValueError."""
        k = max(1, min(self.k, len(model.gallery)))
        method, effort = self.method, self.effort
        if method == "exact":
            return penalized(model, lambda queries, gallery: nearest(queries, gallery, k, device=device))
        return penalized(model, lambda queries, gallery: approximate(queries, gallery, k, method, effort))


def penalized(model: Vectors, find: Callable[[Matrix, Matrix], tuple[Matrix, NDArray[np.int64]]]) -> Neighbors:
    """What `find` finds, with the penalty as one more dimension if there is one."""
    if model.penalty is None:
        return Neighbors(*find(model.queries, model.gallery))
    queries, gallery = with_dimension(model.queries, -1.0), with_dimension(model.gallery, model.penalty)
    scores, rows = find(queries, gallery)
    taken_off = model.penalty[rows]
    scores = np.where(scores > -np.inf, np.maximum(scores + taken_off, 0) - taken_off, -np.inf).astype(np.float32)
    return Neighbors(scores, rows).ranked()


def with_dimension(vectors: Matrix, values: Matrix | float) -> Matrix:
    """float32 (R, D + 1)."""
    last = np.broadcast_to(np.asarray(values, np.float32), len(vectors))[:, None]
    return np.hstack([vectors, last])
