"""How a photo becomes a training image: the options, and what they draw for each image.

Everything drawn is a pure function of (seed, position in the stream), n images at a time. Boxes are x, y, width and
height in pixels of the stored photo. Geometry and JPEG quality are applied by the decoder (loader/pipeline.py), colors
and holes by the training step (model/augment.py).
"""
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from arcshard.fields import check
from loader.draws import ImageChannel, uniform

TRIES = 10  # to draw a crop that fits, as torchvision's RandomResizedCrop, whose distribution this is

# RandAugment's operations, and what each does at full strength.
OPERATIONS = ("identity", "autocontrast", "brightness", "contrast", "saturation", "cutout", "rotate", "shear x",
              "shear y", "shift x", "shift y")
BRIGHTNESS, COLOR = (0.5, 1.5), (0.0, 2.0)  # factors at strength 0 and 1
HOLE, ANGLE, SHEAR, SHIFT = 0.5, 20.0, 0.1, 0.25  # at strength 1: share of the side, degrees, ratio, share

Boxes = NDArray[np.float64]
"""x, y, width, height, (n, 4)."""
Lengths = NDArray[np.int32]
"""Widths or heights of the photos, pixels, (n,)."""
Matrices = NDArray[np.float64]
"""(n, 2, 3): a point (u, v) of the image, whose sides are 1 long, comes from M @ (u, v, 1), in pixels of the photo."""
Column = NDArray[np.float64]
Framing = Literal["crop", "squash", "short", "long", "short-or-squash"]


@dataclass(frozen=True)
class View:
    """How training images are drawn from a photo."""

    framing: Framing = "crop"
    """crop: a random box of area and aspect; squash: a box of side times the photo's width and height; short: a square
    of side times its short side; long: a square of side times its long side, black around the photo; short-or-squash:
    either with probability 1/2 (2nd place 2020, variant 3b). Evaluation squashes the whole photo to a square for crop,
    and shows the center of the frame for the others: see side."""
    side: float = 1.0
    """Share of the frame's side that framings other than crop keep, at a random place (1st place 2020: 448 of 512); in
    evaluation at the center, so that objects have the scale that they had in training."""
    area: tuple[float, float] = (0.1, 1.0)
    """Crop's share of the photo's area, uniform between these."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Crop's width / height before it is resized to a square, log-uniform between these."""
    flip: float = 0.5
    """Probability of a left-right flip."""
    warp: float = 1.0
    """Probability that rotate, scale and shift are applied (3rd place: 0.7)."""
    rotate: float = 0.0
    """Rotate by an angle uniform in ± this, degrees; black where the photo ends (3rd place: 10)."""
    scale: float = 0.0
    """Enlarge by a factor uniform in 1 ± this (3rd place: 0.2)."""
    shift: float = 0.0
    """Shift by shares of the width and height uniform in ± this (3rd place: 0.2), of what shift_of says."""
    shift_of: Literal["box", "image"] = "box"
    """box: of the box in the photo, before the image is enlarged and rotated; image: of the image, after it
    (albumentations, as the 3rd place used it)."""
    brightness: float = 0.0
    """Pixel values times a factor uniform in 1 ± this."""
    contrast: float = 0.0
    """Distance from the image's mean gray times a factor uniform in 1 ± this."""
    saturation: float = 0.0
    """Distance from each pixel's own gray times a factor uniform in 1 ± this."""
    cutout: float = 0.0
    """Probability of a black square hole (3rd place: 0.5)."""
    cutout_side: float = 0.4
    """Side of the hole as a share of the image's; it may reach over the border (3rd place: 0.4)."""
    jpeg: tuple[int, int] | None = None
    """Compress an image once more, with a JPEG quality between these two; null: do not (3rd place: [99, 100])."""
    jpeg_chance: float = 1.0
    """Probability of that compression, if jpeg is given (3rd place: 0.5)."""
    randaugment: int = 0
    """Number of RandAugment operations for each image, from the 2nd place's set (its variant 3b: 3)."""

    def __post_init__(self) -> None:
        self._check(0 < self.area[0] <= self.area[1] <= 1, "area", "give two rising shares above 0, at most 1")
        self._check(0 < self.aspect[0] <= self.aspect[1] < math.inf, "aspect", "give two rising ratios above 0")
        for name in ("flip", "warp", "brightness", "contrast", "saturation", "cutout", "cutout_side", "shift",
                     "jpeg_chance"):
            self._check(0 <= getattr(self, name) <= 1, name, "give 0 to 1")
        self._check(0 < self.side <= 1, "side", "give a share above 0, at most 1")
        self._check(0 <= self.scale < 1, "scale", "give 0 or more, below 1")
        self._check(0 <= self.rotate <= 180, "rotate", "give 0 to 180 degrees")
        self._check(self.jpeg is None or 1 <= self.jpeg[0] <= self.jpeg[1] <= 100, "jpeg",
                    "give two rising qualities from 1 to 100, or null")
        self._check(self.randaugment >= 0, "randaugment", "give 0 or more")

    def _check(self, fits: bool, name: str, remedy: str) -> None:
        check(fits, f"view.{name}", getattr(self, name), remedy)

    def in_evaluation(self, enlarged: float = 1.0) -> "View":
        """The same framing, and nothing random, for images `enlarged` times as wide as those of training.

        Larger images first show more of the frame, with objects at the scale of training; once they show all of it,
        objects grow with them. Smaller images show what those of training do, in which objects shrink with them. So
        1st place 2020 trained on 448 of 512 pixels, and embedded all 512.
        """
        side = 1.0 if self.framing == "crop" else min(1.0, self.side * max(1.0, enlarged))
        return View(framing=self.framing, side=side)

    @property
    def warps(self) -> bool:
        """Whether an image may be anything but a box inside the photo."""
        return bool(self.framing == "long" or self.rotate or self.scale or self.shift or self.randaugment)

    @property
    def has_holes(self) -> bool:
        """Whether an image may have a hole or stretched contrast."""
        return bool(self.cutout or self.randaugment)


# Framing: which part of the photo the image shows.


def draw_boxes(view: View, seed: int, positions: NDArray[np.int64], widths: Lengths, heights: Lengths) -> Boxes:
    """Boxes float64 (n, 4) of whole pixels, by view.framing; those of "long" may reach beyond the photo."""
    if view.framing == "crop":
        return draw_crops(view, seed, positions, widths, heights).astype(np.float64)
    u_x, u_y, coin = uniform(seed, positions[:, None], ImageChannel.PLACE + np.arange(3)).T
    return _parts(whole_frames(view, widths, heights, squash=coin < 0.5), view.side, np.stack([u_x, u_y], 1))


def central_boxes(view: View, widths: Lengths, heights: Lengths) -> Boxes:
    """The boxes that evaluation shows, float64 (n, 4) of whole pixels. view: of `in_evaluation`."""
    return _parts(whole_frames(view, widths, heights), view.side, 0.5)


def _parts(frames: Boxes, side: float, place: NDArray[np.float64] | float) -> Boxes:
    """Boxes within frames, of `side` times their sides. place: shares of the room for x and y, (n, 2), below 1."""
    sides = np.minimum(frames[:, 2:], np.maximum(1, np.rint(frames[:, 2:] * side)))
    room = frames[:, 2:] - sides
    return np.concatenate([frames[:, :2] + np.floor(place * (room + 1)), sides], 1)


def whole_frames(view: View, widths: Lengths, heights: Lengths, squash: NDArray[np.bool_] | bool = False) -> Boxes:
    """The boxes of which training and evaluation take parts, float64 (n, 4).

    squash: which photos are squashed if view.framing is "short-or-squash".
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
    """Random crops, int32 (n, 4): the first of ten drawn boxes that fits, else the largest central box within the
    limits of aspect."""
    tries = np.arange(4 * TRIES).reshape(4, 1, TRIES) + ImageChannel.CROP
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
    return np.where(fits.any(1)[:, None], drawn, _central_boxes(view.aspect, widths, heights)).astype(np.int32)


def _central_boxes(aspect: tuple[float, float], widths: Lengths, heights: Lengths) -> Boxes:
    """The largest centered boxes whose width / height stays within the limits, (n, 4)."""
    w = np.minimum(widths, np.maximum(1, np.rint(heights * aspect[1])))
    h = np.minimum(heights, np.maximum(1, np.rint(widths / aspect[0])))
    return np.stack([(widths - w) // 2, (heights - h) // 2, w, h], 1)


def draw_flips(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images to mirror left-right, bool (n,)."""
    return uniform(seed, positions, ImageChannel.FLIP) < view.flip


# Warps: the framed box turned, sheared, enlarged and shifted; and what must be decoded for that.


def box_matrices(boxes: Boxes) -> Matrices:
    """The matrices of upright boxes (n, 4)."""
    x, y, w, h = boxes.T
    zero = np.zeros_like(x)
    return np.stack([np.stack([w, zero, x], 1), np.stack([zero, h, y], 1)], 1)


def draw_warps(view: View, seed: int, positions: NDArray[np.int64], boxes: Boxes) -> Matrices:
    """The matrices of boxes (n, 4) after rotation, shear and enlargement about their centers, then a shift."""
    u_chance, u_angle, u_scale, *u_shift = uniform(seed, positions[:, None], ImageChannel.WARP + np.arange(5)).T
    applies = np.where(u_chance < view.warp, 1.0, 0.0)
    operations = draw_operations(view.randaugment, seed, positions)
    angle = np.deg2rad(applies * view.rotate * (2 * u_angle - 1) + operations.angle)
    enlarge = 1 + applies * view.scale * (2 * u_scale - 1)
    shift = (applies * view.shift * (2 * np.array(u_shift) - 1)).T
    turn = np.stack([np.stack([np.cos(angle), -np.sin(angle)], 1), np.stack([np.sin(angle), np.cos(angle)], 1)], 1)
    shear = np.tile(np.eye(2), (len(positions), 1, 1))
    shear[:, 0, 1], shear[:, 1, 0] = operations.shear.T
    linear = turn @ shear / enlarge[:, None, None]
    center = boxes[:, :2] + boxes[:, 2:] / 2
    matrices = box_matrices(boxes)
    matrices[:, :, :2] = linear @ matrices[:, :, :2]
    before, after = (operations.shift + shift, 0) if view.shift_of == "box" else (operations.shift, shift)
    offset = matrices[:, :, 2] - center + after * boxes[:, 2:]
    matrices[:, :, 2] = center + before * boxes[:, 2:] + np.einsum("nij,nj->ni", linear, offset)
    return matrices


def decoded_boxes(matrices: Matrices, widths: Lengths, heights: Lengths) -> NDArray[np.int32]:
    """What must be decoded, int32 boxes (n, 4): all pixels that the images touch, at least one."""
    corners = matrices @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], float)  # (n, 2, 4)
    limits = np.stack([widths, heights], 1)
    # linear interpolation looks half a pixel further on each side; 1e-6 keeps rounding errors from adding a pixel
    start = np.clip(np.floor(corners.min(2) - 0.5 + 1e-6), 0, limits - 1)
    end = np.clip(np.ceil(corners.max(2) + 0.5 - 1e-6), start + 1, limits)
    return np.concatenate([start, end - start], 1).astype(np.int32)


def pixel_matrices(matrices: Matrices, boxes: NDArray[np.int32], size: int) -> NDArray[np.float32]:
    """float32 (n, 2, 3): from points of an image `size` pixels wide to points of the decoded boxes.

    The center of the first pixel is the point (0.5, 0.5), as in DALI's warp_affine.
    """
    scaled = matrices.copy()
    scaled[:, :, :2] /= size
    scaled[:, :, 2] -= boxes[:, :2]
    return scaled.astype(np.float32)


# Colors and holes, which the training step applies, and JPEG quality.


def draw_jitter(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32 (n, 3) or, if view.has_holes, (n, 8).

    Columns: factors of brightness, contrast and saturation (1 changes nothing); left, top, right and bottom of a hole
    as shares of the image's side (all 0: no hole); 1 if each color channel is stretched to the full range, else 0.
    """
    ranges = np.array([view.brightness, view.contrast, view.saturation])
    u = uniform(seed, positions[:, None], ImageChannel.JITTER + np.arange(3))
    factors = 1 + (2 * u - 1) * ranges
    if not view.has_holes:
        return factors.astype(np.float32)
    operations = draw_operations(view.randaugment, seed, positions)
    chance, *center = uniform(seed, positions[:, None], ImageChannel.CUTOUT + np.arange(3)).T
    side = np.maximum(np.where(chance < view.cutout, view.cutout_side, 0), operations.hole)[:, None]
    middle = np.stack(center, 1)
    hole = np.where(side > 0, np.clip(np.concatenate([middle - side / 2, middle + side / 2], 1), 0, 1), 0)
    return np.concatenate([factors * operations.factors, hole, operations.autocontrast[:, None]], 1, dtype=np.float32)


def draw_qualities(view: View, seed: int, positions: NDArray[np.int64]) -> NDArray[np.int32]:
    """JPEG quality to compress each image with, int32 (n,); 0: do not."""
    if view.jpeg is None:
        return np.zeros(len(positions), np.int32)
    low, high = view.jpeg
    u_quality, u_chance = uniform(seed, positions[:, None], ImageChannel.JPEG + np.arange(2)).T
    return np.where(u_chance < view.jpeg_chance, low + np.floor(u_quality * (high - low + 1)), 0).astype(np.int32)


# RandAugment as in variant 3b of the 2nd place 2020: a few operations for each image, each of a random strength.
#
# Source: Cubuk et al., "RandAugment", 2020; set and limits are those of the 2nd place's augmentation code, without its
# block fade. Operations of one kind add up or multiply, and the kinds act in a fixed order: rotate, shear, shift;
# brightness, contrast, saturation, autocontrast; hole.


@dataclass
class Operations:
    """The combined effect of each image's operations; arrays are (n,) unless stated."""

    angle: Column
    """Degrees."""
    shear: NDArray[np.float64]
    """Ratios of x on y and y on x, (n, 2)."""
    shift: NDArray[np.float64]
    """Shares of width and height, (n, 2)."""
    factors: NDArray[np.float64]
    """Of brightness, contrast, saturation, (n, 3)."""
    hole: Column
    """Side of a hole as a share of the image's side; 0: no hole."""
    autocontrast: NDArray[np.bool_]
    """Whether to stretch each color channel to the full range."""


def draw_operations(number: int, seed: int, positions: NDArray[np.int64]) -> Operations:
    """Draw `number` operations for each position (n,), with strengths from 0.1 to 0.9 and random signs."""
    channels = ImageChannel.RANDAUGMENT + np.arange(3 * number).reshape(3, 1, number)
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

    return Operations(
        angle=ANGLE * total("rotate"),
        shear=SHEAR * np.stack([total("shear x"), total("shear y")], 1),
        shift=SHIFT * np.stack([total("shift x"), total("shift y")], 1),
        factors=np.stack([factor("brightness", BRIGHTNESS), factor("contrast", COLOR),
                          factor("saturation", COLOR)], 1),
        hole=HOLE * np.where(chosen("cutout"), strength, 0).max(1, initial=0),
        autocontrast=np.any(chosen("autocontrast"), axis=1))
