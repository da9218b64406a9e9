"""What a head takes from the number of images of each class: margins and weights.

sizes: images of each class (C,), any integer or floating type; a class without images counts as one of a single image.
All functions return float32 (C,).
"""
import math

import torch
from torch import Tensor


def power_margins(sizes: Tensor, factor: float, least: float, power: float) -> Tensor:
    """factor · n^-power + least: a rare class is kept at a greater distance.

    Source: Ha et al., "Google Landmark Recognition 2020 competition third place solution", arXiv 2010.05350, which
    used 0.5, 0.05 and 0.25.
    """
    return factor * _shrunk(sizes, power) + least


def range_margins(sizes: Tensor, most: float, least: float, power: float) -> Tensor:
    """The same law, stretched so that the smallest class has `most` and the largest `least`; equal classes have `most`.

    Source: train.py of haqishen/Google-Landmark-Recognition-2020-3rd-Place-Solution (0.5, 0.05, 0.25).
    """
    shrunk = _shrunk(sizes, power)
    low, high = shrunk.min(), shrunk.max()
    share = (shrunk - low) / (high - low) if high > low else torch.ones_like(shrunk)
    return least + (most - least) * share


def log_weights(sizes: Tensor) -> Tensor:
    """Proportional to 1 / ln(1 + n), as of the 1st place 2020, with mean 1 over the images.

    A constant norm, where the 1st place divides by the weights of a micro-batch: so the losses of micro-batches or
    ranks average to the loss of the whole batch.
    """
    counted = sizes.clamp_min(1).double()
    weights = 1 / (1 + counted).log()
    return (weights * counted.sum() / (weights * counted).sum()).float()


def fixed_adacos_scale(num_classes: int) -> float:
    """√2 · ln(C − 1). Source: Zhang et al., "AdaCos", CVPR 2019 (arXiv 1905.00292), the fixed form.

    Raises ValueError below 3 classes."""
    if num_classes < 3:
        raise ValueError(f"head.scale: auto is sqrt(2) ln(C - 1), which needs at least 3 classes; got {num_classes}: "
                         "give a number")
    return math.sqrt(2) * math.log(num_classes - 1)


def _shrunk(sizes: Tensor, power: float) -> Tensor:
    return sizes.clamp_min(1).double().pow(-power).float()
