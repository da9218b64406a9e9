"""Features scaled to a normal distribution."""
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.state import Matrix, State, Step, Vectors, unit

QUANTILES = 1000  # sklearn's default
EDGE = 1e-7  # sklearn's BOUNDS_THRESHOLD: the share beyond which the normal distribution is cut off, at 5.2


@dataclass(frozen=True)
class Quantile(Step):
    """Each feature through its distribution over the queries and the normal quantile function, then length 1.

    1st place 2020 (notebooks/blend_ranking.ipynb at 4e39676): sklearn's QuantileTransformer(output_distribution=
    "normal") fitted on the test embeddings, applied to all. Fitted on every query; sklearn draws 10,000 of more.
    """

    needs = frozenset({"all_queries"})

    def __call__(self, state: State) -> State:
        return replace(state, models=tuple(scaled(model) for model in state.models))


def scaled(model: Vectors) -> Vectors:
    """The model's queries, gallery and non-landmarks in scaled features; its centers have no meaning there."""
    queries = to_normal(model.queries, model.queries)
    others = None if model.non_landmarks is None else to_normal(model.non_landmarks, model.queries)
    found = Vectors(unit(queries), unit(to_normal(model.gallery, model.queries)),
                    query_lengths=np.linalg.norm(queries, axis=1))
    return found if others is None else replace(found, non_landmarks=unit(others),
                                                non_landmark_lengths=np.linalg.norm(others, axis=1))


def to_normal(values: Matrix, fitted_on: Matrix) -> Matrix:
    """float32 (R, D): each column of values in the normal scores of the same column of fitted_on, (F, D), F > 0."""
    shares = np.linspace(0, 1, min(QUANTILES, len(fitted_on)))
    out = np.empty(values.shape, np.float32)
    for d in range(values.shape[1]):
        known = np.maximum.accumulate(np.quantile(fitted_on[:, d].astype(np.float64), shares))
        out[:, d] = _normal(_share(values[:, d].astype(np.float64), known, shares))
    return out


def _share(values: NDArray[np.float64], known: NDArray[np.float64], shares: NDArray[np.float64]
           ) -> NDArray[np.float64]:
    """Share of the distribution below each value; in a run of equal quantiles, the middle of its shares."""
    up = np.interp(values, known, shares)
    down = np.interp(-values, -known[::-1], -shares[::-1])
    inside = 0.5 * (up - down)
    inside[values + EDGE > known[-1]] = 1
    inside[values - EDGE < known[0]] = 0
    return inside


def _normal(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    return torch.special.ndtri(torch.from_numpy(shares.clip(EDGE, 1 - EDGE))).numpy()
