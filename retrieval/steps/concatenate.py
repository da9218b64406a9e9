"""Several models' embeddings as one."""
from dataclasses import dataclass, replace

import numpy as np

from retrieval.state import Matrix, State, Step, Vectors, unit


@dataclass(frozen=True)
class Concatenate(Step):
    """One embedding of all models: their unit vectors side by side, each times its weight, scaled to length 1.

    The cosine becomes the mean of the models' cosines weighted by weight²; 2nd place 2020 weighted the vectors so
    (W2: B7 .6, B6 .2, B5 .1, ResNet152 .1), 1st and 3rd alike.
    """

    weights: list[float] | None = None
    """One a model, above 0; null: all alike."""

    def __call__(self, state: State) -> State:
        weights = one_a_model(self.weights, len(state.models))
        joined = {name: concatenate([getattr(model, name) for model in state.models], weights)
                  for name in ("queries", "gallery")}
        others = [model.non_landmarks for model in state.models]
        known = [rows for rows in others if rows is not None]
        return replace(state, models=(Vectors(
            **joined, non_landmarks=concatenate(known, weights) if len(known) == len(others) else None),))


def concatenate(vectors: list[Matrix], weights: list[float]) -> Matrix:
    """Unit rows (R, sum of D) of rows (R, D_m) of each model."""
    return unit(np.hstack([rows * np.float32(weight) for rows, weight in zip(vectors, weights, strict=True)]))


def one_a_model(weights: list[float] | None, models: int) -> list[float]:
    """The weights, 1.0 each where none are given. Raises ValueError if their number or one of them is wrong."""
    if weights is not None and (len(weights) != models or not all(weight > 0 for weight in weights)):
        raise ValueError(f"weights are {weights}: give {models} numbers above 0, one a model")
    return weights or [1.0] * models
