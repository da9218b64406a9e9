"""What happens to an image's colours inside the training step: the numbers are drawn here, model/photometry.py acts."""
import numpy as np
from numpy.typing import NDArray

from loader import randaugment
from loader.hashing import uniform
from loader.views import View

JITTER, CUTOUT, JPEG = 200, 600, 700  # channels of randomness


def draw_jitter(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 (n, 3) or, if view.has_holes, (n, 8).

    Columns: factors of brightness, contrast and saturation (1 changes nothing); a hole's left, top, right and bottom as
    shares of the image's side (all 0: none); 1 where each channel is stretched to the full range, else 0.
    """
    spread = np.array([view.brightness, view.contrast, view.saturation])
    u = uniform(seed, positions[:, None], JITTER + np.arange(3))
    factors = 1 + (2 * u - 1) * spread
    if not view.has_holes:
        return factors.astype(np.float32)
    operations = randaugment.draw(view.randaugment, seed, positions)
    chance, *centre = uniform(seed, positions[:, None], CUTOUT + np.arange(3)).T
    side = np.maximum(np.where(chance < view.cutout, view.cutout_side, 0), operations.hole)[:, None]
    middle = np.stack(centre, 1)
    hole = np.where(side > 0, np.clip(np.concatenate([middle - side / 2, middle + side / 2], 1), 0, 1), 0)
    return np.concatenate([factors * operations.factors, hole, operations.autocontrast[:, None]], 1, dtype=np.float32)


def draw_qualities(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.int32]:
    """JPEG quality to compress each image with, int32 (n,); 0: not at all."""
    if view.jpeg is None:
        return np.zeros(len(positions), np.int32)
    low, high = view.jpeg
    return (low + np.floor(uniform(seed, positions, JPEG) * (high - low + 1))).astype(np.int32)
