"""Which classes are taken for which."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from retrieval.metrics import NO_LANDMARK, Truths, is_true


@dataclass(frozen=True)
class Confusion:
    """Queries that show one label and are answered with another."""
    shown: int
    answered: int
    queries: list[int]
    """Their positions, the most confident first."""


def confusions(labels: ArrayLike, scores: ArrayLike, truths: Truths) -> list[Confusion]:
    """All pairs, the most frequent first; equals by their most confident query, then by label.

    Args: labels, int (Q,), -1 for none; scores, float (Q,). A query of several landmarks counts for each of them.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    wrong = ~is_true(labels[:, None], truths)[:, 0] & (labels != NO_LANDMARK)
    by_score = np.argsort(-scores, kind="stable")
    pairs: dict[tuple[int, int], list[int]] = {}
    for i in by_score[wrong[by_score]].tolist():
        for shown in truths[i]:
            pairs.setdefault((shown, int(labels[i])), []).append(i)
    return sorted((Confusion(*pair, queries) for pair, queries in pairs.items()),
                  key=lambda one: (-len(one.queries), -scores[one.queries[0]], one.shown, one.answered))
