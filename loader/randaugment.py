"""RandAugment as variant 3b of the 2nd place 2020 had it: a few operations an image, each of a random strength.

Source: Cubuk et al., "RandAugment", 2020; set and limits: the 2nd place's augmentation code. Operations of one kind add
up or multiply, and the kinds act in a fixed order: turn, shear, shift; brightness, contrast, saturation, full contrast;
hole. Its block fade is left out.
"""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loader.hashing import uniform

OPERATIONS = ("identity", "autocontrast", "brightness", "contrast", "saturation", "cutout", "rotate", "shear x",
              "shear y", "shift x", "shift y")
CHANNEL = 800
BRIGHTNESS, COLOUR = (0.5, 1.5), (0.0, 2.0)  # factors at strength 0 and 1
HOLE, ANGLE, SHEAR, SHIFT = 0.5, 20.0, 0.1, 0.25  # at strength 1: share of the side, degrees, ratio, share

Column = NDArray[np.float64]


@dataclass
class Drawn:
    """What the operations of each image come to; every array (n, ) or as said."""

    angle: Column
    """Degrees."""
    shear: NDArray[np.float64]
    """Ratios of x on y and y on x, (n, 2)."""
    shift: NDArray[np.float64]
    """Shares of width and height, (n, 2)."""
    factors: NDArray[np.float64]
    """Of brightness, contrast, saturation, (n, 3)."""
    hole: Column
    """Side of a hole, share of the image's side; 0: none."""
    autocontrast: NDArray[np.bool_]
    """Whether to stretch each channel to the full range."""


def draw(number: int, seed: int, positions: NDArray[np.int64]) -> Drawn:
    """`number` operations for each position (n,), with strengths from 0.1 to 0.9 and random signs."""
    channels = CHANNEL + np.arange(3 * number).reshape(3, 1, number)
    u_operation, u_strength, u_sign = uniform(seed, positions[:, None], channels)  # each (n, number)
    operation = np.floor(u_operation * len(OPERATIONS)).astype(np.int64)
    strength = (1 + np.floor(9 * u_strength)) / 10
    signed = np.where(u_sign < 0.5, -strength, strength)

    def chosen(name: str) -> NDArray[np.bool_]:
        return operation == OPERATIONS.index(name)

    def total(name: str) -> Column:
        return np.where(chosen(name), signed, 0).sum(1)

    def factor(name: str, limits: tuple[float, float]) -> Column:
        return np.where(chosen(name), limits[0] + (limits[1] - limits[0]) * strength, 1).prod(1)

    return Drawn(
        angle=ANGLE * total("rotate"),
        shear=SHEAR * np.stack([total("shear x"), total("shear y")], 1),
        shift=SHIFT * np.stack([total("shift x"), total("shift y")], 1),
        factors=np.stack([factor("brightness", BRIGHTNESS), factor("contrast", COLOUR),
                          factor("saturation", COLOUR)], 1),
        hole=HOLE * np.where(chosen("cutout"), strength, 0).max(1, initial=0),
        autocontrast=np.any(chosen("autocontrast"), axis=1))
