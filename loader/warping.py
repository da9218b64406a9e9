"""Turns, enlargements and shifts: from a framed box to what is decoded and how the image is sampled from it."""
import numpy as np
from numpy.typing import NDArray

from loader import randaugment
from loader.framing import Boxes, Lengths
from loader.hashing import uniform
from loader.views import View

WARP = 500  # channel of randomness

Matrices = NDArray[np.float64]
"""(n, 2, 3): a point (u, v) of the image, both sides 1 long, comes from M @ (u, v, 1), in pixels."""


def of_boxes(boxes: Boxes) -> Matrices:
    """Upright boxes (n, 4)."""
    x, y, w, h = boxes.T
    zero = np.zeros_like(x)
    return np.stack([np.stack([w, zero, x], 1), np.stack([zero, h, y], 1)], 1)


def draw_warps(view: View, seed: int, positions: NDArray[np.int64], boxes: Boxes) -> Matrices:
    """The boxes (n, 4), turned, sheared and enlarged about their centres, then shifted."""
    u_chance, u_angle, u_scale, *u_shift = uniform(seed, positions[:, None], WARP + np.arange(5)).T
    applies = np.where(u_chance < view.warp, 1.0, 0.0)
    operations = randaugment.draw(view.randaugment, seed, positions)
    angle = np.deg2rad(applies * view.rotate * (2 * u_angle - 1) + operations.angle)
    enlarge = 1 + applies * view.scale * (2 * u_scale - 1)
    shift = (applies * view.shift * (2 * np.array(u_shift) - 1)).T + operations.shift
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], 1), np.stack([np.sin(angle), np.cos(angle)], 1)], 1)
    shear = np.tile(np.eye(2), (len(positions), 1, 1))
    shear[:, 0, 1], shear[:, 1, 0] = operations.shear.T
    linear = turn @ shear / enlarge[:, None, None]
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    matrices = of_boxes(boxes)
    matrices[:, :, :2] = linear @ matrices[:, :, :2]
    offset = matrices[:, :, 2] - centre
    matrices[:, :, 2] = centre + shift * boxes[:, 2:] + np.einsum("nij,nj->ni", linear, offset)
    return matrices


def regions(matrices: Matrices, widths: Lengths, heights: Lengths) -> NDArray[np.int32]:
    """What must be decoded, int32 boxes (n, 4): all pixels that the images touch, at least one."""
    corners = matrices @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], float)  # (n, 2, 4)
    limits = np.stack([widths, heights], 1)
    # half a pixel more on each side is what linear interpolation looks at; a rounding error touches nothing
    start = np.clip(np.floor(corners.min(2) - 0.5 + 1e-6), 0, limits - 1)
    end = np.clip(np.ceil(corners.max(2) + 0.5 - 1e-6), start + 1, limits)
    return np.concatenate([start, end - start], 1).astype(np.int32)


def in_pixels(matrices: Matrices, boxes: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """float32 (n, 2, 3): from points of an image `size` pixels wide to points of the decoded boxes.

    Points, not pixels: the first pixel's centre is (0.5, 0.5), as DALI's warp_affine has it.
    """
    scaled = matrices.copy()
    scaled[:, :, :2] /= size
    scaled[:, :, 2] -= boxes[:, :2]
    return scaled.astype(np.float32)
