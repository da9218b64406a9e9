"""The models' lists of neighbors as one."""
from dataclasses import dataclass, replace

import numpy as np

from retrieval.state import Neighbors, State, Step
from retrieval.steps.concatenate import one_a_model


@dataclass(frozen=True)
class Merge(Step):
    """One list: a gallery row's score is the sum of weight × score over the lists that hold it; the best k.

    2nd place 2020 (generate_submissions.ipynb at 683f021): weights B7 .6, B6 .2, B5 .1, ResNet152 .1, k 10.
    """

    weights: list[float] | None = None
    """One a model; null: all alike."""
    k: int = 10

    def __call__(self, state: State) -> State:
        weights = one_a_model(self.weights, len(state.neighbors))
        return replace(state, neighbors=(merge(state.neighbors, weights, self.k),))


def merge(lists: tuple[Neighbors, ...], weights: list[float], k: int) -> Neighbors:
    """The first k by (sum descending, row ascending); a query's list that is shorter ends in -inf."""
    rows = np.hstack([found.rows for found in lists])
    scores = np.hstack([found.scores * np.float32(weight) for found, weight in zip(lists, weights, strict=True)])
    by_row = np.argsort(rows, axis=1, kind="stable")
    rows, scores = (np.take_along_axis(values, by_row, 1) for values in (rows, scores))
    sums = scores.astype(np.float64)
    for j in range(1, rows.shape[1]):  # a run of one row adds up in its last place
        same = rows[:, j] == rows[:, j - 1]
        sums[:, j] += np.where(same, sums[:, j - 1], 0)
        sums[same, j - 1] = -np.inf
    order = np.lexsort((rows, -sums), axis=1)[:, :k]
    return Neighbors(np.take_along_axis(sums, order, 1).astype(np.float32), np.take_along_axis(rows, order, 1))
