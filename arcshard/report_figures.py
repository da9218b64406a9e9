"""Pictures of the report as data URIs: photos as JPEG, curves as SVG. The same input gives the same bytes."""
import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from PIL import Image

INK, GRID, BLUE = "#24292f", "#d8dee4", "#0b5cad"
STYLE: Any = {"svg.hashsalt": "arcshard", "svg.fonttype": "none",
              "font.family": "sans-serif", "font.size": 10,
              "axes.labelcolor": INK, "axes.edgecolor": GRID, "xtick.color": INK, "ytick.color": INK,
              "axes.spines.top": False, "axes.spines.right": False,
              "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # date and version would change the bytes


def photo(jpeg: bytes, side: int) -> str:
    """An encoded photo, shrunk to fit side × side pixels, as a data URI."""
    with Image.open(io.BytesIO(jpeg)) as image:
        image.draft("RGB", (side, side))  # decodes a large JPEG at a fraction of its size
        small = image.convert("RGB")
    small.thumbnail((side, side))
    return _jpeg(small)


def view(pixels: NDArray[np.uint8]) -> str:
    """uint8 (S, S, 3) RGB as a data URI."""
    return _jpeg(Image.fromarray(pixels))


def chart(positions: Sequence[int], values: Sequence[float], floor: float | None = None) -> str:
    """Values over images seen as a data URI of an SVG; points are marked where they are few.

    floor: where the y axis starts; None fits the values.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 2.6), layout="constrained")
        axes = figure.subplots()
        marker = "o" if len(values) <= 30 else ""
        axes.plot(positions, values, color=BLUE, linewidth=1.4, marker=marker, markersize=4)
        axes.set_ylim(bottom=floor)
        axes.set_xlim(left=0)
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata=NO_METADATA)
    return _uri("image/svg+xml", svg.getvalue())


def _jpeg(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=82)
    return _uri("image/jpeg", encoded.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
