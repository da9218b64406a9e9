"""Which part of a photo becomes a training or evaluation image: pure functions of (seed, position)."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loader.hashing import uniform

TRIES = 10  # as torchvision's RandomResizedCrop, whose distribution this is
# One channel of randomness for each use, so that a new augmentation never shifts the numbers of an old one.
CROP, FLIP, JITTER = 0, 100, 200


@dataclass(frozen=True)
class View:
    """What is drawn for each training image."""

    area: tuple[float, float] = (0.1, 1.0)
    """Crop's share of the photo's area, uniform between these."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Crop's width / height before it is resized to a square, log-uniform between these."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    brightness: float = 0.0
    """Pixel values times a factor uniform in 1 ± this."""
    contrast: float = 0.0
    """Distance from the image's mean grey times a factor uniform in 1 ± this."""
    saturation: float = 0.0
    """Distance from each pixel's own grey times a factor uniform in 1 ± this."""

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"area must be two rising shares in (0, 1]; got {self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect must be two rising positive ratios; got {self.aspect}")
        for name in ("flip", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1]; got {getattr(self, name)}")


def draw_crops(view: View, seed: int, positions: NDArray[np.int64], widths: NDArray[np.int32],
               heights: NDArray[np.int32]) -> NDArray[np.int32]:
    """Random crop boxes, int32 (n, 4): x, y, width, height in pixels of the stored photo (widths, heights: (n,)).

    The first of ten drawn boxes that fits; if none does, the largest central box within the aspect limits.
    """
    tries = np.arange(4 * TRIES).reshape(4, 1, TRIES) + CROP
    u_area, u_aspect, u_x, u_y = uniform(seed, positions[:, None], tries)  # each (n, TRIES)
    area = (view.area[0] + u_area * (view.area[1] - view.area[0])) * (widths * heights.astype(np.float64))[:, None]
    low, high = np.log(view.aspect)
    aspect = np.exp(low + u_aspect * (high - low))
    w, h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (w >= 1) & (h >= 1) & (w <= widths[:, None]) & (h <= heights[:, None])
    first = fits.argmax(1)[:, None]
    w, h, u_x, u_y = (np.take_along_axis(v, first, 1)[:, 0] for v in (w, h, u_x, u_y))
    x, y = np.floor(u_x * (widths - w + 1)), np.floor(u_y * (heights - h + 1))
    drawn = np.stack([x, y, w, h], 1)
    return np.where(fits.any(1)[:, None], drawn, _central(view.aspect, widths, heights)).astype(np.int32)


def _central(aspect: tuple[float, float], widths: NDArray[np.int32], heights: NDArray[np.int32]
             ) -> NDArray[np.float64]:
    """The largest centred box whose width / height stays within the limits."""
    w = np.minimum(widths, np.maximum(1, np.rint(heights * aspect[1])))
    h = np.minimum(heights, np.maximum(1, np.rint(widths / aspect[0])))
    return np.stack([(widths - w) // 2, (heights - h) // 2, w, h], 1)


def whole_photos(widths: NDArray[np.int32], heights: NDArray[np.int32]) -> NDArray[np.int32]:
    """The evaluation view, int32 (n, 4): the whole photo, squashed to a square as 2nd and 3rd place 2020 did."""
    zero = np.zeros_like(widths)
    return np.stack([zero, zero, widths, heights], 1).astype(np.int32)


def draw_flips(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images to mirror left-right, bool (n,)."""
    return uniform(seed, positions, FLIP) < view.flip


def draw_jitter(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Factors of brightness, contrast and saturation, float32 (n, 3); 1 changes nothing."""
    spread = np.array([view.brightness, view.contrast, view.saturation])
    u = uniform(seed, positions[:, None], JITTER + np.arange(3))
    return (1 + (2 * u - 1) * spread).astype(np.float32)
