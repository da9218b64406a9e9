"""Pictures of the report as data URIs: photos as JPEG, charts as SVG. The same input gives the same bytes."""
import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from PIL import Image

INK, QUIET, GRID, BLUE, ORANGE = "#24292f", "#6e7781", "#d8dee4", "#0b5cad", "#bc4c00"
LOOKS: list[Any] = [{"color": BLUE}, {"color": ORANGE, "linestyle": "--"}, {"color": QUIET, "linestyle": ":"}]
STYLE: Any = {"svg.hashsalt": "arcshard", "svg.fonttype": "none",
              "font.family": "sans-serif", "font.size": 10, "text.color": INK,
              "axes.labelcolor": INK, "axes.edgecolor": GRID, "xtick.color": INK, "ytick.color": INK,
              "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
              "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # date and version would change the bytes
BINS = 40


@dataclass(frozen=True)
class Line:
    """Values over images seen; a value of NaN leaves a gap."""
    label: str
    """Of the legend, which a chart of one line has not."""
    positions: Sequence[int]
    values: Sequence[float]


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


def chart(lines: Sequence[Line], unit: str = "", floor: float | None = None,
          stages: Mapping[str, int] | None = None) -> str:
    """Up to three lines as a data URI of an SVG; points are marked where they are few.

    unit: of the values. floor: where the y axis starts; None fits the values. stages: where each begins, by name.
    """
    with _drawn("images seen", unit, legend=len(lines) > 1) as (axes, svg):
        for line, look in zip(lines, LOOKS):
            marker = "o" if len(line.values) <= 30 else ""
            axes.plot(line.positions, line.values, linewidth=1.4, marker=marker, markersize=4, label=line.label, **look)
        for name, start in (stages or {}).items():
            axes.axvline(start, color=QUIET, linewidth=0.8)
            axes.annotate(name, (start, 1), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                          color=QUIET, fontsize=9)
        axes.set_ylim(bottom=floor)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return _uri("image/svg+xml", svg.getvalue())


def histogram(samples: Mapping[str, NDArray[np.floating]], what: str) -> str:
    """Up to three samples as outlines over common bins, each in per cent of its own size, as a data URI of an SVG.

    samples: label -> values (n,), n > 0. what: the values' name and unit.
    """
    values = np.concatenate(list(samples.values()))
    edges = np.linspace(values.min(), values.max() + 1e-6, BINS + 1)
    with _drawn(what, "% of the queries", legend=True) as (axes, svg):
        for (label, sample), look in zip(samples.items(), LOOKS):
            share = 100 * np.histogram(sample, edges)[0] / len(sample)
            axes.stairs(share, edges, fill=True, color=look["color"], alpha=0.15)
            axes.stairs(share, edges, linewidth=1.4, label=label, **look)
        axes.set_ylim(bottom=0)
    return _uri("image/svg+xml", svg.getvalue())


@contextmanager
def _drawn(xlabel: str, ylabel: str, legend: bool) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw into, and what becomes the SVG when the block ends; without background, as pages may be dark."""
    svg = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 2.8), layout="constrained")
        axes = figure.subplots()
        yield axes, svg
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if legend:
            figure.legend(loc="outside upper left", ncols=3, fontsize=9)
        figure.savefig(svg, format="svg", metadata=NO_METADATA, transparent=True)


def _jpeg(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=82)
    return _uri("image/jpeg", encoded.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
