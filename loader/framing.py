"""Which part of a photo is framed: pure functions of (seed, position). Boxes are x, y, width, height in its pixels."""
import numpy as np
from numpy.typing import NDArray

from loader.hashing import uniform
from loader.views import View

TRIES = 10  # as torchvision's RandomResizedCrop, whose distribution this is
# One channel of randomness for each use, so that a new augmentation never shifts the numbers of an old one.
CROP, FLIP, PLACE = 0, 100, 110

Boxes = NDArray[np.float64]
Lengths = NDArray[np.int32]


def draw_boxes(view: View, seed: int, positions: NDArray[np.int64], widths: Lengths, heights: Lengths) -> Boxes:
    """Boxes float64 (n, 4) of whole pixels, as view.framing has them; those of "long" may reach beyond the photo."""
    if view.framing == "crop":
        return draw_crops(view, seed, positions, widths, heights).astype(np.float64)
    u_x, u_y, coin = uniform(seed, positions[:, None], PLACE + np.arange(3)).T
    frames = whole_frames(view, widths, heights, squash=coin < 0.5)
    sides = np.maximum(1, np.rint(frames[:, 2:] * view.side))
    room = frames[:, 2:] - sides
    return np.concatenate([frames[:, :2] + np.floor(np.stack([u_x, u_y], 1) * (room + 1)), sides], 1)


def whole_frames(view: View, widths: Lengths, heights: Lengths, squash: NDArray[np.bool_] | bool = False) -> Boxes:
    """The boxes of which draw_boxes takes a part, and evaluation the whole, float64 (n, 4).

    squash: which are squashed if view.framing is "short-or-squash".
    """
    w, h = widths.astype(np.float64), heights.astype(np.float64)
    short, long = np.minimum(w, h), np.maximum(w, h)
    if view.framing in ("short", "short-or-squash"):
        squashed = squash if view.framing == "short-or-squash" else False
        sides = np.stack([np.where(squashed, w, short), np.where(squashed, h, short)], 1)
    else:
        sides = np.stack([long, long] if view.framing == "long" else [w, h], 1)
    return np.concatenate([(np.stack([w, h], 1) - sides) // 2, sides], 1)


def draw_crops(view: View, seed: int, positions: NDArray[np.int64], widths: Lengths, heights: Lengths
               ) -> NDArray[np.int32]:
    """Random crops, int32 (n, 4): the first of ten drawn boxes that fits, else the largest central one within the
    aspect limits."""
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


def _central(aspect: tuple[float, float], widths: Lengths, heights: Lengths) -> Boxes:
    """The largest centred box whose width / height stays within the limits."""
    w = np.minimum(widths, np.maximum(1, np.rint(heights * aspect[1])))
    h = np.minimum(heights, np.maximum(1, np.rint(widths / aspect[0])))
    return np.stack([(widths - w) // 2, (heights - h) // 2, w, h], 1)


def draw_flips(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images to mirror left-right, bool (n,)."""
    return uniform(seed, positions, FLIP) < view.flip
