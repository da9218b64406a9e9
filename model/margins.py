"""Margins: the cosine of the true class -> (the target that the softmax sees instead, its derivative by the cosine).

Both have the cosine's shape and dtype and are finite over all of [-1, 1]. A margin is a tensor that broadcasts to the
cosine, so that a schedule moves no number from the host.
"""
import math

import torch
from torch import Tensor

LEAST_SIN2 = 1e-9  # below it, d sin / d cos counts as 0, since it is infinite at cos = ±1


def add_angle(cos: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """cos(θ + margin) of cos θ; margin in radians, within (-π/2, π/2).

    Past θ + margin = π it continues as cos θ − margin·sin margin, so that it never rises again; where θ + margin < 0 it
    is 1. Source: Deng et al., "ArcFace: Additive angular margin loss for deep face recognition", CVPR 2019, eq. 3;
    the continuation is that of insightface and of the 1st place 2020.
    """
    sin2 = 1 - cos.square()
    sin = sin2.clamp_min(LEAST_SIN2).sqrt()
    turned = cos * margin.cos() - sin * margin.sin()
    slope = margin.cos() + torch.where(sin2 > LEAST_SIN2, cos / sin, 0.0) * margin.sin()
    past_pi = (margin >= 0) & (cos <= -margin.cos())
    below_0 = (margin < 0) & (cos >= margin.cos())
    target = torch.where(past_pi, cos - margin * margin.sin(), torch.where(below_0, 1.0, turned))
    return target, torch.where(past_pi, 1.0, torch.where(below_0, 0.0, slope))


def add_angle_if_near(cos: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """`add_angle` where the cosine is positive, no margin elsewhere: the target jumps by sin margin between them.

    The "easy margin" of insightface's MXNet ArcFace; used in exp7 of D2-MetricLearning.
    """
    target, slope = add_angle(cos, margin)
    return torch.where(cos > 0, target, cos), torch.where(cos > 0, slope, 1.0)


def subtract(cos: Tensor, margin: Tensor) -> tuple[Tensor, Tensor]:
    """cos θ − margin. Source: Wang et al., "CosFace: Large margin cosine loss", CVPR 2018, eq. 4."""
    return cos - margin, torch.ones_like(cos)


def adapt(cos: Tensor, margin: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
    """cos(θ − margin·quality) − margin·(1 + quality), quality in [-1, 1] without gradient.

    -1 is ArcFace, 0 CosFace, 1 a margin that spares what is hard. Source: Kim et al., "AdaFace: Quality adaptive margin
    for face recognition", CVPR 2022 (arXiv 2204.00964), whose code stops the angle at 0 and at π; here past π as above.
    """
    target, slope = add_angle(cos, -margin * quality)
    return target - margin * (1 + quality), slope


# Margins, weights and scale from the numbers of images or classes.
#
# sizes: images of each class (C,), any integer or floating type; a class without images counts as one with one image.
# Functions of sizes return float32 (C,).


def power_margins(sizes: Tensor, factor: float, least: float, power: float) -> Tensor:
    """factor · n^-power + least: a rare class is kept at a greater distance.

    Source: Ha et al., "Google Landmark Recognition 2020 competition third place solution", arXiv 2010.05350, which
    used 0.5, 0.05 and 0.25.
    """
    return factor * _shrunk(sizes, power) + least


def range_margins(sizes: Tensor, most: float, least: float, power: float) -> Tensor:
    """The same law, stretched so that the smallest class has `most` and the largest `least`; if all are equal, `most`.

    Source: train.py of haqishen/Google-Landmark-Recognition-2020-3rd-Place-Solution (0.5, 0.05, 0.25).
    """
    shrunk = _shrunk(sizes, power)
    low, high = shrunk.min(), shrunk.max()
    share = (shrunk - low) / (high - low) if high > low else torch.ones_like(shrunk)
    return least + (most - least) * share


def log_weights(sizes: Tensor) -> Tensor:
    """Proportional to 1 / ln(1 + n), as of the 1st place 2020, with mean 1 over the images.

    The norm is constant, while the 1st place divides by the weights of a micro-batch: here the losses of micro-batches
    and ranks average to the loss of the whole batch.
    """
    counted = sizes.clamp_min(1).double()
    weights = 1 / (1 + counted).log()
    return (weights * counted.sum() / (weights * counted).sum()).float()


def fixed_adacos_scale(num_classes: int) -> float:
    """√2 · ln(C − 1). Source: Zhang et al., "AdaCos", CVPR 2019 (arXiv 1905.00292), the fixed form.

    Raises ValueError below 3 classes.
    """
    if num_classes < 3:
        raise ValueError(f"head.scale: auto is sqrt(2) ln(C - 1), which needs at least 3 classes; got {num_classes}: "
                         "give a number")
    return math.sqrt(2) * math.log(num_classes - 1)


def _shrunk(sizes: Tensor, power: float) -> Tensor:
    return sizes.clamp_min(1).double().pow(-power).float()
