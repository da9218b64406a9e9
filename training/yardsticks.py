"""What ArcFace's loss is where nothing has been learnt, to tell a run that is stuck from one that is slow.

A loss that rests at `collapsed` means that all embeddings and all class centres point one way: the margin costs
least there, and its gradient points back to it. C classes, s scale, m margin in radians, d size of the embedding.
"""
import math
from collections.abc import Sequence

LINES = 10  # of metrics.jsonl that must be flat
NEAR, FLAT = 0.03, 0.01  # shares of the level


def uniform(num_classes: int) -> float:
    """Of one who gives every class the same chance: ln C."""
    return math.log(num_classes)


def untrained(num_classes: int, dim: int, scale: float, margin: float) -> float:
    """Expected with random directions, whose cosines are about normal with variance 1/d: ln C + s²/(2d) + s·sin m."""
    return uniform(num_classes) + scale ** 2 / (2 * dim) + scale * math.sin(margin)


def collapsed(num_classes: int, scale: float, cost: float, smoothing: float = 0.0) -> float:
    """With every cosine 1: ln(1 + (C - 1)·exp(s·cost)), nearly ln C + s·cost.

    cost: what the margin takes from a cosine of 1: ArcFace 1 - cos m, CosFace m. smoothing: of the labels.
    """
    others = math.log(num_classes - 1) + scale * cost if num_classes > 1 else -math.inf
    spread = smoothing * scale * cost * (1 - 1 / num_classes)  # this share of the truth pays for no margin
    return max(0.0, others) + math.log1p(math.exp(-abs(others))) - spread


def is_stuck(losses: Sequence[float], level: float) -> bool:
    """Whether the last LINES losses stay near `level`, where nothing is learnt, and no longer fall."""
    last = losses[-LINES:]
    if len(last) < LINES or max(abs(loss - level) for loss in last) > NEAR * level:
        return False
    half = LINES // 2
    return sum(last[:half]) / half - sum(last[half:]) / half < FLAT * level
