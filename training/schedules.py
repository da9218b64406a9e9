"""Schedules as pure functions of how far a stage is: another global batch keeps them.

progress: share of the stage's images seen, in [0, 1]. epochs: the same in epochs, exact where one ends.
"""
import math

from model import HeadConfig
from training.config import TrainConfig


def lr_factor(progress: float, epochs: float, c: TrainConfig) -> float:
    """The learning rate as a share of train.lr: linear from 0 to 1 over c.warmup, then as c.schedule says; in [0, 1].

    Source of cosine: Loshchilov and Hutter, "SGDR", ICLR 2017, eq. 5 with one period.
    """
    if progress < c.warmup:
        return progress / c.warmup
    match c.schedule:
        case "constant":
            return 1.0
        case "step":
            return c.step_gamma ** (sum(epochs >= end for end in c.step_epochs) if c.step_epochs else int(epochs))
    whole = (c.schedule_epochs or c.epochs) / c.epochs  # the schedule's length as a share of the stage
    rest = min((progress - c.warmup) / (whole - c.warmup), 1.0) if c.warmup < whole else 1.0
    curve = (1 - rest) ** c.poly_power if c.schedule == "poly" else 0.5 * (1 + math.cos(math.pi * rest))
    return c.lr_end + (1 - c.lr_end) * curve


def margin_at(progress: float, epochs: float, c: HeadConfig) -> float:
    """Margin in radians: linear from c.margin_start to c.margin over the first c.margin_warmup, then constant.

    With c.margin_by_epoch, what it was when the epoch began. A large margin from the start is the usual reason why
    ArcFace does not converge.
    """
    if not c.margin_warmup:
        return c.margin
    if c.margin_by_epoch and epochs:
        progress *= math.floor(epochs) / epochs
    return c.margin_start + (c.margin - c.margin_start) * min(progress / c.margin_warmup, 1.0)


def passed(start: float, end: float, every: float) -> bool:
    """Whether a positive multiple of `every` lies in (start, end]."""
    return end // every > start // every
