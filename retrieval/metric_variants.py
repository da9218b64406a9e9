"""GAP as the first three places of Google Landmark Recognition 2020 computed it, to read their figures by.

Without equal scores and with one true label a query, all three equal `retrieval.metrics.gap`. Args of each: labels int
(Q,), predicted, -1 for none; scores float (Q,); truths int (Q,), the query's first true label, -1 for none.
"""
import numpy as np
from numpy.typing import ArrayLike, NDArray

from retrieval.metrics import NO_LANDMARK, gap, precision_sum


def gap_first_place(labels: ArrayLike, scores: ArrayLike, truths: ArrayLike) -> float:
    """psinger/kaggle-landmark-recognition-2020-1st-place 4e39676, src/utils.py: of equal scores the later comes first.

    It reverses numpy's argsort, whose order of ties is arbitrary; here it is stable, then reversed.
    """
    return gap(np.asarray(labels)[::-1], np.asarray(scores)[::-1], _sets(truths)[::-1])


def gap_second_place(labels: ArrayLike, scores: ArrayLike, truths: ArrayLike) -> float:
    """bestfitting/instance_level_recognition 683f021, GAP_vector: a query without prediction takes a rank too.

    Its rank is that of its score, NaN last. Of equal scores the earlier comes first (pandas' order is arbitrary).
    """
    labels, scores, truths = np.asarray(labels), np.asarray(scores, np.float64), np.asarray(truths)
    ranked = np.argsort(-scores, kind="stable")  # numpy and pandas alike put NaN last
    right = (labels == truths) & (truths != NO_LANDMARK)
    asked = int((truths != NO_LANDMARK).sum())
    return precision_sum(right[ranked]) / asked if asked else 0.0


def gap_third_place(labels: ArrayLike, scores: ArrayLike, truths: ArrayLike) -> float:
    """haqishen/Google-Landmark-Recognition-2020-3rd-Place-Solution a7947ff, util.py: of equal scores the earlier."""
    return gap(labels, scores, _sets(truths))


def _sets(truths: ArrayLike) -> list[set[int]]:
    first: NDArray[np.int64] = np.asarray(truths)
    return [{label} if label != NO_LANDMARK else set() for label in first.tolist()]
