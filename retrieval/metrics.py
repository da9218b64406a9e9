"""Metrics of landmark recognition and retrieval: GAP and its interval, recall@k, mAP@k, TAR@FAR. Pure, in float64.

Q queries; truths[i] is the set of query i's true labels, empty for a photo without landmark; label -1: none.
Every metric is a mean; over no query at all it is 0.0, without NaN or warning.
"""
from collections.abc import Collection, Sequence
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike, NDArray

NO_LANDMARK = -1
LEVEL = 0.95  # of intervals
NAN_SCORES = "a threshold cannot order NaN scores: give -inf to what is never accepted"

Truths = Sequence[Collection[int]]


def gap(labels: ArrayLike, scores: ArrayLike, truths: Truths, keys: Sequence[str] | None = None) -> float:
    """Global average precision (micro-AP) of at most one prediction a query, in [0, 1].

    GAP = 1/M * sum over ranks i of precision(i) * right(i), the predictions of all queries ranked by score.
    M counts the queries with a landmark. A prediction on a query without one is wrong and takes up a rank;
    not predicting costs only what could have been won. M = 0 gives 0.0.

    Args:
        labels: int (Q,), predicted; -1 for no prediction.
        scores: float (Q,), any scale; read only where there is a prediction.
        truths: Q sets of labels; a prediction is right if its label is among them.
        keys: Q image ids, the official order of equal scores; without them the earlier query comes first.

    Official is GlobalAveragePrecision in tensorflow/models e4009b2,
    research/delf/delf/python/datasets/google_landmarks_dataset/metrics.py, with its default
    ignore_non_gt_test_images=False: score descending, then key, then class (of which a query has one here).
    Raises ValueError for unequal lengths and for NaN scores.
    """
    ranked = ranking(labels, scores, truths, keys)
    right = is_true(np.asarray(labels)[:, None], truths)[ranked, 0]
    return _mean(precision_sum(right), has_landmark(truths).sum())


def ranking(labels: ArrayLike, scores: ArrayLike, truths: Truths, keys: Sequence[str] | None = None
            ) -> NDArray[np.int64]:
    """The queries with a prediction, in the order in which `gap` counts them."""
    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if not len(labels) == len(scores) == len(truths) or keys is not None and len(keys) != len(labels):
        raise ValueError(f"gap needs a label, a score and a truth for each query, got {len(labels)}, "
                         f"{len(scores)} and {len(truths)}" + ("" if keys is None else f", and {len(keys)} keys"))
    predicted = np.flatnonzero(labels != NO_LANDMARK)
    if np.isnan(scores[predicted]).any():
        raise ValueError("gap cannot rank a NaN score: give label -1 for no prediction")
    if keys is not None:
        predicted = predicted[np.argsort(np.asarray(keys)[predicted], kind="stable")]
    return predicted[np.argsort(-scores[predicted], kind="stable")]


def precision_sum(right: NDArray[np.bool_]) -> float:
    """Sum of the precision at each right answer of a ranked list, bool (R,)."""
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].sum())


def gap_landmark_only(labels: ArrayLike, scores: ArrayLike, truths: Truths,
                      keys: Sequence[str] | None = None) -> float:
    """`gap` over the queries with a landmark only (ignore_non_gt_test_images=True of the official metric)."""
    shown = has_landmark(truths)
    kept = [truth for truth in truths if len(truth) > 0]
    return gap(np.asarray(labels)[shown], np.asarray(scores)[shown], kept,
               None if keys is None else np.asarray(keys)[shown].tolist())


def recall_at_k(neighbor_labels: ArrayLike, truths: Truths, k: int) -> float:
    """Share of the queries with a landmark that have a true label among their first k neighbors.

    neighbor_labels: int (Q, K), nearest first; K < k is a short list. A query whose landmark the gallery
    lacks counts as missed. Of lists of distinct labels, as `Candidates` holds, this is the top-k accuracy.
    """
    hit = is_true(_first(neighbor_labels, k), truths).any(axis=1)
    return _mean(hit.sum(), has_landmark(truths).sum())


def map_at_k(neighbor_labels: ArrayLike, truths: Truths, num_relevant: ArrayLike, k: int = 100) -> float:
    """Mean average precision at k as Google Landmarks v2 defines it (Weyand et al. 2020, arXiv 2004.01804).

    AP@k(q) = 1/min(n_q, k) * sum over ranks r <= k of precision(r) * right(r), averaged over the queries with
    n_q > 0. A list shorter than k has nothing right behind its end, as in the official MeanAveragePrecision.

    Args:
        neighbor_labels: int (Q, K), nearest first.
        num_relevant: int (Q,), n_q: gallery images that show a landmark of the query, see `count_relevant`.
    """
    found = average_precisions(neighbor_labels, truths, num_relevant, k)
    return _mean(found.sum(), len(found))


def average_precisions(neighbor_labels: ArrayLike, truths: Truths, num_relevant: ArrayLike, k: int = 100
                       ) -> NDArray[np.float64]:
    """AP@k of each query with n_q > 0, as in `map_at_k`."""
    right = is_true(_first(neighbor_labels, k), truths)
    precision = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    n = np.asarray(num_relevant)
    relevant = n > 0
    return (precision * right).sum(axis=1)[relevant] / np.minimum(n[relevant], k)


def count_relevant(gallery_labels: ArrayLike, truths: Truths) -> NDArray[np.int64]:
    """Gallery images (int labels (N,), -1 for none) that show one of each query's landmarks: int64 (Q,)."""
    owner, label = _pairs(truths)
    gallery = np.asarray(gallery_labels)
    counts = np.bincount(gallery[gallery != NO_LANDMARK], minlength=label.max(initial=0) + 1)
    return np.bincount(owner, counts[label], minlength=len(truths)).astype(np.int64)


def _first(neighbor_labels: ArrayLike, k: int) -> NDArray[np.int64]:
    if k < 1:
        raise ValueError(f"k is {k}: give at least 1")
    return np.asarray(neighbor_labels)[:, :k]


def is_true(labels: NDArray[np.int64], truths: Truths) -> NDArray[np.bool_]:
    """Whether labels[q, j] is among truths[q]: bool (Q, K). Labels of -1 never are."""
    owner, label = _pairs(truths)
    start = np.searchsorted(owner, np.arange(len(truths)))
    slot = np.arange(len(owner)) - start[owner]
    true = np.zeros(labels.shape, bool)
    for s in range(slot.max(initial=-1) + 1):  # as many passes as the largest truth has labels
        at = owner[slot == s]
        true[at] |= labels[at] == label[slot == s, None]
    return true


def _pairs(truths: Truths) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (query, true label) pairs, by query."""
    owner = np.repeat(np.arange(len(truths)), [len(truth) for truth in truths])
    label = np.fromiter(chain.from_iterable(truths), np.int64, len(owner))
    if (label == NO_LANDMARK).any():
        raise ValueError("a truth holds -1: give an empty set for a query without landmark")
    return owner, label


def has_landmark(truths: Truths) -> NDArray[np.bool_]:
    """Which queries have a true label: bool (Q,)."""
    return np.fromiter((len(truth) > 0 for truth in truths), bool, len(truths))


def _mean(total: float, count: int) -> float:
    return float(total / count) if count else 0.0


# How far GAP would move with other queries: percentile bootstrap (Efron 1979).

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
    shown, rng = has_landmark(truths), np.random.default_rng(seed)

    def one() -> float:
        drawn = rng.integers(0, len(truths), len(truths))
        order = np.sort(place[drawn])
        count = shown[drawn].sum()
        return precision_sum(right[order[order < len(ranked)]]) / count if count else 0.0

    return np.array([one() for _ in range(rounds)]) if len(truths) else np.zeros(rounds)


def resampled_means(values: NDArray[np.float64], rounds: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Means of `rounds` samples of the values drawn with replacement, float64 (rounds,)."""
    rng = np.random.default_rng(seed)
    return np.array([values[rng.integers(0, len(values), len(values))].mean() for _ in range(rounds)])


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    least, most = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(least), float(most)


# Accepting and refusing by one threshold: true accepts at a share of false ones.

def tar_at_far(genuine: ArrayLike, impostor: ArrayLike, far: float) -> float:
    """Greatest share of genuine scores accepted while at most a share `far` of the impostors is, in [0, 1].

    A score is accepted above a threshold, equal scores alike; so TAR is the share of genuine scores above the
    (floor(far * impostors) + 1)-th greatest impostor. Verification at a fixed false accept rate as in NIST IR 8238,
    section 3, without interpolation. Without impostors the share of genuine scores above -inf.

    Args: genuine, impostor: float, any scale; -inf is never accepted. far: in [0, 1].
    Raises ValueError for far out of range and for NaN scores.
    """
    genuine = np.asarray(genuine, np.float64)
    if np.isnan(genuine).any():
        raise ValueError(NAN_SCORES)
    threshold = impostor_threshold(impostor, far)
    return float((genuine > threshold).mean()) if len(genuine) else 0.0


def impostor_threshold(impostor: ArrayLike, far: float) -> float:
    """The least threshold above which lies at most a share `far` of the scores; -inf if all may lie there.

    Raises ValueError as `tar_at_far` does.
    """
    impostor = np.sort(np.asarray(impostor, np.float64))
    if not 0 <= far <= 1:
        raise ValueError(f"far is {far}: give a share of the impostors from 0 to 1")
    if np.isnan(impostor).any():
        raise ValueError(NAN_SCORES)
    allowed = int(np.floor(far * len(impostor) + 1e-9))  # 0.07 * 100 is 7.000…1, and 0.29 * 100 is 28.99…
    return float(impostor[-allowed - 1]) if allowed < len(impostor) else -np.inf


def answers_at_far(labels: ArrayLike, scores: ArrayLike, truths: Truths, far: float) -> float:
    """Share of the landmark queries answered rightly above the score that a share `far` of the other queries reaches.

    This is the detection and identification rate of open-set identification. Args as in `gap`.
    """
    labels = np.asarray(labels)
    scores = np.where(labels != NO_LANDMARK, np.asarray(scores, np.float64), -np.inf)
    shown, right = has_landmark(truths), is_true(labels[:, None], truths)[:, 0]
    return tar_at_far(np.where(right, scores, -np.inf)[shown], scores[~shown], far)
