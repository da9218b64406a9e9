"""From embeddings to lists of neighbours."""
from dataclasses import dataclass, replace

import numpy as np

from retrieval.neighbours import nearest
from retrieval.state import Matrix, Neighbours, State, Step, Vectors


@dataclass(frozen=True)
class Search(Step):
    """Each query's k best gallery rows by max(cosine, 0) less the row's penalty, for each model.

    The penalty is one more dimension, so that the whole gallery is ranked by the difference and not a shortlist of
    it. 1st place 2020 limits cosines to [0, 1] before; here a row of negative cosine counts as 0 only once listed,
    which differs where a query's k-th best has a negative cosine, and is worth nothing then.
    """

    k: int = 5

    def __call__(self, state: State) -> State:
        return replace(state, neighbours=tuple(search(model, self.k, state.device) for model in state.models))


def search(model: Vectors, k: int, device: str = "cpu") -> Neighbours:
    """Lists of min(k, N) of one model; Q lists of an empty gallery are a ValueError."""
    k = max(1, min(k, len(model.gallery)))
    if model.penalty is None:
        return Neighbours(*nearest(model.queries, model.gallery, k, device=device))
    queries, gallery = with_dimension(model.queries, -1.0), with_dimension(model.gallery, model.penalty)
    scores, rows = nearest(queries, gallery, k, device=device)
    taken_off = model.penalty[rows]
    scores = np.maximum(scores + taken_off, 0) - taken_off
    order = np.lexsort((rows, -scores), axis=1)
    return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))


def with_dimension(vectors: Matrix, values: Matrix | float) -> Matrix:
    """float32 (R, D + 1)."""
    last = np.broadcast_to(np.asarray(values, np.float32), len(vectors))[:, None]
    return np.hstack([vectors, last])
