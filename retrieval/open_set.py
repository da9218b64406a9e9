"""Accepting and refusing by one threshold: true accepts at a share of false ones."""
import numpy as np
from numpy.typing import ArrayLike

from retrieval.metrics import NO_LANDMARK, Truths, has_landmark, is_true


def tar_at_far(genuine: ArrayLike, impostor: ArrayLike, far: float) -> float:
    """Greatest share of genuine scores accepted while at most a share `far` of the impostors is, in [0, 1].

    A score is accepted above a threshold, equal scores alike; so TAR is the share of genuine scores above the
    (floor(far * impostors) + 1)-th greatest impostor. Verification at a fixed false accept rate as in NIST IR 8238,
    section 3, without interpolation. Without impostors the share of genuine scores above -inf.

    Args: genuine, impostor: float, any scale; -inf is never accepted. far: in [0, 1].
    Raises ValueError for far out of range and for NaN scores.
    """
    genuine, impostor = np.asarray(genuine, np.float64), np.sort(np.asarray(impostor, np.float64))
    if not 0 <= far <= 1:
        raise ValueError(f"far is a share of the impostors in [0, 1], got {far}")
    if np.isnan(genuine).any() or np.isnan(impostor).any():
        raise ValueError("a threshold orders scores and NaN has no order: give -inf to what is never accepted")
    allowed = int(np.floor(far * len(impostor) + 1e-9))  # 0.07 * 100 is 7.000…1, and 0.29 * 100 is 28.99…
    threshold = impostor[-allowed - 1] if allowed < len(impostor) else -np.inf
    return float((genuine > threshold).mean()) if len(genuine) else 0.0


def answers_at_far(labels: ArrayLike, scores: ArrayLike, truths: Truths, far: float) -> float:
    """Share of the landmark queries answered rightly above the score that a share `far` of the other queries reaches.

    This is the detection and identification rate of open-set identification. Args as in `gap`.
    """
    labels = np.asarray(labels)
    scores = np.where(labels != NO_LANDMARK, np.asarray(scores, np.float64), -np.inf)
    asked, right = has_landmark(truths), is_true(labels[:, None], truths)[:, 0]
    return tar_at_far(np.where(right, scores, -np.inf)[asked], scores[~asked], far)
