"""A penalty for photos of landmarks that have many."""
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.metrics import NO_LANDMARK
from retrieval.state import State, Step, with_penalty


@dataclass(frozen=True)
class ClassCountPenalty(Step):
    """Search by cosine - weight × ln(photos of the gallery photo's landmark), for each model.

    4th place 2021 (Kaggle discussion 277386) lowered cosines for the class's count in the train set and gave no
    formula; the logarithm is ours: the nearest of n photos gets nearer about as ln n does.
    """

    weight: float = 0.02

    def __call__(self, state: State) -> State:
        amounts = self.weight * np.log(class_counts(state.gallery_labels))
        return replace(state, models=tuple(with_penalty(model, amounts) for model in state.models))


def class_counts(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,): how many rows bear each row's label; 1 for a row without landmark."""
    _, of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.where(labels == NO_LANDMARK, 1, counts[of])
