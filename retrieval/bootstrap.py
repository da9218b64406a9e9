"""How far GAP would move with other queries: percentile bootstrap over queries (Efron 1979)."""
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.metrics import Truths, has_landmark, is_true, precision_sum, ranking

LEVEL = 0.95


def resampled_gaps(labels: ArrayLike, scores: ArrayLike, truths: Truths, *, keys: Sequence[str] | None = None,
                   rounds: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """`gap` of `rounds` samples of Q queries drawn with replacement, float64 (rounds,).

    The same seed draws the same queries: differences of two pipelines are paired. Copies of a query are ranked one
    after the other. Args as in `gap`.
    """
    ranked = ranking(labels, scores, truths, keys)
    right = is_true(np.asarray(labels)[:, None], truths)[ranked, 0]
    place = np.full(len(truths), len(ranked))  # behind the list: no prediction
    place[ranked] = np.arange(len(ranked))
    asked, rng = has_landmark(truths), np.random.default_rng(seed)

    def one() -> float:
        drawn = rng.integers(0, len(truths), len(truths))
        order = np.sort(place[drawn])
        count = asked[drawn].sum()
        return precision_sum(right[order[order < len(ranked)]]) / count if count else 0.0

    return np.array([one() for _ in range(rounds)]) if len(truths) else np.zeros(rounds)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    least, most = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(least), float(most)
