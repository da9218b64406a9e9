"""How well embeddings answer queries: neighbours, votes and every metric of eval.json."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.answers import vote
from retrieval.metrics import Truths, count_relevant, gap, gap_landmark_only, map_at_k, recall_at_k
from retrieval.neighbours import nearest

DEPTH = 100  # neighbours that mAP@100 looks at


@dataclass(frozen=True)
class Evaluation:
    """The metrics and what they rest on: K = min(100, gallery size) neighbours a query, nearest first."""
    metrics: dict[str, float]
    """gap, gap_landmark_only, recall@1 and map@100, each in [0, 1]."""
    neighbours: NDArray[np.int64]
    """(Q, K) gallery rows."""
    cosines: NDArray[np.float32]
    """(Q, K)."""
    answers: NDArray[np.int64]
    """(Q,) labels, -1 for none."""
    scores: NDArray[np.float64]
    """(Q,) of the answers."""


def evaluate(queries: NDArray[np.float32], truths: Truths, gallery: NDArray[np.float32],
             gallery_labels: NDArray[np.int64], *, voters: int, power: float, device: str = "cpu") -> Evaluation:
    """Answer each query from the gallery and measure the answers.

    Args:
        queries, gallery: float32 (Q, D) and (N, D), rows of length 1. A query must not be in the gallery.
        truths: Q sets of true labels, empty for no landmark. gallery_labels: int (N,), -1 for none.
        voters, power: `vote` over the nearest `voters` (all of a smaller gallery).

    Raises ValueError where `nearest` or `vote` does, an empty gallery included.
    """
    depth = max(1, min(DEPTH, len(gallery)))
    cosines, neighbours = nearest(queries, gallery, depth, device=device)
    labels = gallery_labels[neighbours]
    answers, scores = vote(cosines, labels, min(voters, depth), power)
    metrics = {"gap": gap(answers, scores, truths),
               "gap_landmark_only": gap_landmark_only(answers, scores, truths),
               "recall@1": recall_at_k(labels, truths, 1),
               "map@100": map_at_k(labels, truths, count_relevant(gallery_labels, truths), 100)}
    return Evaluation(metrics, neighbours, cosines, answers, scores)
