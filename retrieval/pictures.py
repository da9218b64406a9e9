"""Pictures of answers: queries beside their neighbors, and two photos with the inliers that they share."""
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.JpegImagePlugin import JpegImageFile

from retrieval.local_features import Inliers

# Queries and their neighbors: pixels of a photo's box, around it, and of the lines of its caption.
BOX_WIDTH, BOX_HEIGHT, MARGIN = 240, 180, 12
LINES, LINE = 4, 18
PAPER, INK, FRAME = (255, 255, 255), (31, 35, 40), (243, 244, 246)
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # Latin, Greek, Cyrillic, Arabic

# Two photos: pixels of each, at most, and between them.
PAIR_HEIGHT, PAIR_WIDTH, PAIR_GAP = 480, 1440, 8
SHIFT = 4  # fractional bits of OpenCV's coordinates: lines end at a sixteenth of a pixel


@dataclass(frozen=True)
class Shown:
    """A photo and its caption."""
    photo: bytes
    """A JPEG."""
    caption: list[str]
    """Lines of the caption, at most LINES; a line that is too long ends in an ellipsis."""


def neighbors_picture(rows: list[list[Shown]]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), RGB; the first of each row, the query, has a frame. Raises ValueError if there is no row."""
    if not rows:
        raise ValueError("there is no query to draw: a picture shows at least one")
    columns, step = max(map(len, rows)), BOX_HEIGHT + LINES * LINE + 2 * MARGIN
    picture = Image.new("RGB", (columns * (BOX_WIDTH + MARGIN) + MARGIN, len(rows) * step + MARGIN), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.truetype(FONT, 13)
    for r, row in enumerate(rows):
        for c, shown in enumerate(row):
            x, y = MARGIN + c * (BOX_WIDTH + MARGIN), MARGIN + r * step
            picture.paste(_boxed(shown.photo), (x, y))
            if c == 0:
                draw.rectangle((x, y, x + BOX_WIDTH - 1, y + BOX_HEIGHT - 1), outline=INK, width=3)
            for i, line in enumerate(shown.caption[:LINES]):
                draw.text((x, y + BOX_HEIGHT + 4 + i * LINE), _clipped(line, font), INK, font)
    return np.asarray(picture)


def _boxed(encoded: bytes) -> Image.Image:
    """The whole photo in the middle of a box of BOX_WIDTH × BOX_HEIGHT pixels."""
    with JpegImageFile(io.BytesIO(encoded)) as photo:  # Image.open has a limit, and packing another
        small = photo.convert("RGB")
    small.thumbnail((BOX_WIDTH, BOX_HEIGHT))
    box = Image.new("RGB", (BOX_WIDTH, BOX_HEIGHT), FRAME)
    box.paste(small, ((BOX_WIDTH - small.width) // 2, (BOX_HEIGHT - small.height) // 2))
    return box


def _clipped(line: str, font: ImageFont.FreeTypeFont) -> str:
    """The line as far as it fits BOX_WIDTH pixels."""
    line = " ".join(line.split())
    if font.getlength(line) <= BOX_WIDTH:
        return line
    kept = len(line)
    while kept and font.getlength(line[:kept] + "…") > BOX_WIDTH:
        kept -= 1
    return line[:kept] + "…"


def match_picture(a: NDArray[np.uint8], b: NDArray[np.uint8], inliers: Inliers) -> NDArray[np.uint8]:
    """uint8 (480, W, 3), RGB: photos a and b side by side, with a line from each inlier to its partner.

    a, b: uint8 (H, W, 3), RGB; the inliers are given in their pixels.
    """
    left, right = _fitted(a), _fitted(b)
    beside = left.shape[1] + PAIR_GAP
    picture = np.full((PAIR_HEIGHT, beside + right.shape[1], 3), 255, np.uint8)
    picture[:len(left), :left.shape[1]] = left
    picture[:len(right), beside:] = right
    ends_a = _scaled(inliers.points_a, a, left)
    ends_b = _scaled(inliers.points_b, b, right) + (beside, 0)
    for i, ends in enumerate(zip(_fixed(ends_a), _fixed(ends_b))):
        color = _color(i, len(inliers))
        cv2.line(picture, *ends, color, 1, cv2.LINE_AA, SHIFT)
        for end in ends:
            cv2.circle(picture, end, 3 << SHIFT, color, 1, cv2.LINE_AA, SHIFT)
    return picture


def _fitted(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(PAIR_HEIGHT / photo.shape[0], PAIR_WIDTH / photo.shape[1])
    width, height = (max(1, round(side * scale)) for side in photo.shape[1::-1])
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _scaled(points: NDArray[np.float32], photo: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Pixels of the photo -> pixels of its picture; (0, 0) is the middle of the first of both."""
    scale = np.divide(shown.shape[1::-1], photo.shape[1::-1])
    return (points + 0.5) * scale - 0.5


def _fixed(points: np.ndarray) -> list[tuple[int, int]]:
    return [(x, y) for x, y in np.round(points * (1 << SHIFT)).astype(int).tolist()]


def _color(i: int, count: int) -> tuple[int, int, int]:
    """Of line i, RGB: a turn of hues, so that neighboring lines can be told apart."""
    hue = np.array([[[round(180 * i / max(1, count)) % 180, 220, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue
