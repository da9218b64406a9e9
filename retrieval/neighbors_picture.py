"""Queries and their neighbors as one picture: a row a query, each photo above its words."""
import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, GAP = 240, 180, 12  # pixels of a photo, and around it
LINES, LINE = 4, 18  # of words, and their height in pixels
PAPER, INK, FRAME = (255, 255, 255), (31, 35, 40), (243, 244, 246)
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # Latin, Greek, Cyrillic, Arabic


@dataclass(frozen=True)
class Shown:
    """A photo and what is said of it."""
    photo: bytes
    """Encoded."""
    words: list[str]
    """A line each, at most LINES; a line that is too long ends in an ellipsis."""


def neighbors_picture(rows: list[list[Shown]]) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), RGB; the first of each row, the query, has a frame. Raises ValueError if there is no row."""
    if not rows:
        raise ValueError("a picture shows queries, and there is none")
    columns, step = max(map(len, rows)), HEIGHT + LINES * LINE + 2 * GAP
    picture = Image.new("RGB", (columns * (WIDTH + GAP) + GAP, len(rows) * step + GAP), PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.truetype(FONT, 13)
    for r, row in enumerate(rows):
        for c, shown in enumerate(row):
            x, y = GAP + c * (WIDTH + GAP), GAP + r * step
            picture.paste(_fitted(shown.photo), (x, y))
            if c == 0:
                draw.rectangle((x, y, x + WIDTH - 1, y + HEIGHT - 1), outline=INK, width=3)
            for i, line in enumerate(shown.words[:LINES]):
                draw.text((x, y + HEIGHT + 4 + i * LINE), _clipped(line, font), INK, font)
    return np.asarray(picture)


def _fitted(encoded: bytes) -> Image.Image:
    """The whole photo in the middle of WIDTH × HEIGHT pixels."""
    with Image.open(io.BytesIO(encoded)) as photo:
        small = photo.convert("RGB")
    small.thumbnail((WIDTH, HEIGHT))
    box = Image.new("RGB", (WIDTH, HEIGHT), FRAME)
    box.paste(small, ((WIDTH - small.width) // 2, (HEIGHT - small.height) // 2))
    return box


def _clipped(line: str, font: ImageFont.FreeTypeFont) -> str:
    """The line as far as it fits WIDTH pixels."""
    line = " ".join(line.split())
    if font.getlength(line) <= WIDTH:
        return line
    kept = len(line)
    while kept and font.getlength(line[:kept] + "…") > WIDTH:
        kept -= 1
    return line[:kept] + "…"
