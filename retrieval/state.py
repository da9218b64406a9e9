"""What flows through the steps of a pipeline: embeddings, then lists of neighbors, then candidates."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
CountInliers = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Gallery rows (Q, K) -> the pairs of keypoints, (Q, K), by which each query's photo agrees with each row's."""


@dataclass(frozen=True)
class Vectors:
    """One model's embeddings, float32 rows of length 1 and D dimensions."""
    queries: Matrix
    """(Q, D)."""
    gallery: Matrix
    """(N, D)."""
    non_landmarks: Matrix | None = None
    """(M, D), photos known to show no landmark; no query may be among them. None where there are none."""
    centers: Matrix | None = None
    """(C, K, D), of any length: the K centers of each class that the head learned. None if it is not known."""
    penalty: Matrix | None = None
    """(N,), taken off the cosines of the gallery's rows when neighbors are searched. None: nothing."""
    query_lengths: Matrix | None = None
    """(Q,), before a step scaled the queries to length 1. None: 1."""
    non_landmark_lengths: Matrix | None = None
    """(M,), likewise."""


@dataclass(frozen=True)
class Neighbors:
    """Lists of K gallery rows a query, best first; scores -inf fill a list that is shorter."""
    scores: Matrix
    """(Q, K)."""
    rows: NDArray[np.int64]
    """(Q, K)."""
    inliers: NDArray[np.int64] | None = None
    """(Q, K), 0 where photos were not compared; None if none were."""

    def ranked(self) -> "Neighbors":
        """The same by score descending; equals by row."""
        order = np.lexsort((self.rows, -self.scores), axis=1)
        return Neighbors(np.take_along_axis(self.scores, order, 1), np.take_along_axis(self.rows, order, 1),
                         None if self.inliers is None else np.take_along_axis(self.inliers, order, 1))


@dataclass(frozen=True)
class Candidates:
    """Distinct labels for each query, best first; score -inf fills a list that is shorter."""
    labels: NDArray[np.int64]
    """(Q, L), -1 for no landmark."""
    scores: NDArray[np.float64]
    """(Q, L)."""

    @property
    def answers(self) -> NDArray[np.int64]:
        """(Q,) labels, -1 for none."""
        return self.labels[:, 0]

    @property
    def confidences(self) -> NDArray[np.float64]:
        """(Q,) of the answers."""
        return self.scores[:, 0]


@dataclass(frozen=True)
class State:
    """Everything known when a step begins; a step returns another state."""
    models: tuple[Vectors, ...]
    """As the steps changed them."""
    gallery_labels: NDArray[np.int64]
    """(N,), -1 for no landmark."""
    device: str = "cpu"
    sources: tuple[Vectors, ...] = field(default=())
    """The models as they came: class centers belong to these."""
    neighbors: tuple[Neighbors, ...] = ()
    """A list for each model, or one of all."""
    candidates: Candidates | None = None
    keys: Sequence[str] = ()
    """Q sample keys, or none if it matters to nobody what a model was fitted on."""
    inliers: CountInliers | None = None
    """Compares photos; None where they are not at hand."""


Need = Literal["non_landmarks", "photos", "all_queries"]
"""What only some steps need: photos without landmark to compare with; the photos of queries and gallery; all queries at
once, since the step fits something to them."""


@dataclass(frozen=True)
class Step:
    """A step of a pipeline: its numbers, and what it makes of a state. Raises ValueError for counts below 1."""

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __post_init__(self) -> None:
        for name in ("k", "rank", "top", "times", "effort", "cap"):
            if getattr(self, name, 1) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give at least 1")

    def __call__(self, state: State) -> State:
        raise NotImplementedError


def own_lists(state: State, step: str) -> list[tuple[Neighbors, Vectors]]:
    """Each model's list of neighbors beside the model. Raises ValueError if there are none, or they are merged."""
    if not state.neighbors or len(state.neighbors) != len(state.models):
        raise ValueError(f"{step} ranks each model's own list: put it after search and before merge")
    return list(zip(state.neighbors, state.models))


def with_penalty(model: Vectors, amounts: NDArray[np.floating]) -> Vectors:
    """The model with amounts (N,) more taken off the cosines of the gallery's rows."""
    before = np.zeros(len(model.gallery), np.float32) if model.penalty is None else model.penalty
    return replace(model, penalty=before + amounts.astype(np.float32))


def unit(rows: NDArray[np.floating]) -> Matrix:
    """Rows scaled to length 1 in their own precision, then float32; a row of zeros stays one."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


def ranked(candidates: Candidates) -> Candidates:
    """The candidates by score descending; equals keep their order."""
    order = np.argsort(-candidates.scores, axis=1, kind="stable")
    return Candidates(np.take_along_axis(candidates.labels, order, 1), np.take_along_axis(candidates.scores, order, 1))
