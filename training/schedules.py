"""Schedules as pure functions of progress, the share of the run's images seen: another global batch keeps them."""
import math


def lr_factor(progress: float, warmup: float, schedule: str = "cosine") -> float:
    """Linear from 0 to 1 over the first `warmup` share of the run, then half a cosine to 0 at its end.

    schedule: "constant" stays at 1 instead. progress, warmup in [0, 1]; returns a factor in [0, 1]. Source: Loshchilov
    and Hutter, "SGDR", ICLR 2017, eq. 5 with one period.
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "constant":
        return 1.0
    rest = (progress - warmup) / (1 - warmup) if warmup < 1 else 1.0
    return 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def margin_at(progress: float, margin: float, warmup: float) -> float:
    """Margin in radians: linear from 0 to `margin` over the first `warmup` share of the run, then constant.

    A large margin from the start is the usual reason why ArcFace does not converge.
    """
    return margin * min(progress / warmup, 1.0) if warmup > 0 else margin


def passed(start: float, end: float, every: float) -> bool:
    """Whether a positive multiple of `every` lies in (start, end]."""
    return end // every > start // every
