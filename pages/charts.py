"""Charts as data URIs of SVG. The same input gives the same bytes."""
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from pages.templates import data_uri

INK, QUIET, GRID, BLUE, ORANGE = "#24292f", "#6e7781", "#d8dee4", "#0b5cad", "#bc4c00"
PALE_TO_DARK = LinearSegmentedColormap.from_list("blues", ["#d3e4f5", BLUE, "#051f3b"])
LINE_STYLES: list[Any] = [{"color": BLUE}, {"color": ORANGE, "linestyle": "--"}, {"color": QUIET, "linestyle": ":"}]
STYLE: Any = {"svg.hashsalt": "arcshard", "svg.fonttype": "none",
              "font.family": "sans-serif", "font.size": 10, "text.color": INK,
              "axes.labelcolor": INK, "axes.edgecolor": GRID, "xtick.color": INK, "ytick.color": INK,
              "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
              "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6}
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # date and version would change the bytes
BINS = 40
WIDTH, HEIGHT = 4.4, 2.7  # inches, of 10 pt letters: they are still 10 pixels high on a phone
MANY_BARS = 7  # the labels of more would touch


@dataclass(frozen=True)
class Line:
    """Values over images seen; a value of NaN leaves a gap."""
    label: str
    """In the legend, which a chart of one line does not have."""
    positions: Sequence[int]
    values: Sequence[float]


def line_chart(lines: Sequence[Line], unit: str = "", floor: float | None = None,
               stages: Mapping[str, int] | None = None) -> str:
    """Up to three lines over images seen; points are marked where they are few.

    Args:
        unit: of the values.
        floor: where the y axis starts; None fits the values.
        stages: name -> images seen when the stage began.
    """
    with _chart("images seen", unit, legend=len(lines) > 1) as (axes, svg):
        for line, style in zip(lines, LINE_STYLES):
            marker = "o" if len(line.values) <= 30 else ""
            axes.plot(line.positions, line.values, linewidth=1.4, marker=marker, markersize=4, label=line.label,
                      **style)
        for name, start in (stages or {}).items():
            axes.axvline(start, color=QUIET, linewidth=0.8)
            axes.annotate(name, (start, 1), (3, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
                          color=QUIET, fontsize=9)
        if floor is not None:
            top = axes.get_ylim()[1]
            axes.set_ylim(floor, top + (top - floor) / 25)  # room for the highest points
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return data_uri("image/svg+xml", svg.getvalue())


def compare_histograms(samples: Mapping[str, NDArray[np.floating]], what: str) -> str:
    """Up to three samples as outlines over common bins, each in percent of its own size.

    Args:
        samples: label -> values (n,), n > 0.
        what: name and unit of the values.
    """
    values = np.concatenate(list(samples.values()))
    edges = np.linspace(values.min(), values.max() + 1e-6, BINS + 1)
    with _chart(what, "% of the queries", legend=True) as (axes, svg):
        for (label, sample), style in zip(samples.items(), LINE_STYLES):
            share = 100 * np.histogram(sample, edges)[0] / len(sample)
            axes.stairs(share, edges, fill=True, color=style["color"], alpha=0.15)
            axes.stairs(share, edges, linewidth=1.4, label=label, **style)
        axes.set_ylim(bottom=0)
    return data_uri("image/svg+xml", svg.getvalue())


def bar_chart(bins: list[tuple[str, int]], what: str, of: str) -> str:
    """Bars with their numbers on top.

    Args:
        bins: label -> number.
        what: what the labels count, x axis.
        of: what the numbers count, y axis.
    """
    with _count_chart(what, of) as (axes, svg):
        numbers = [number for _, number in bins]
        bars = axes.bar(range(len(bins)), numbers, color=BLUE, width=0.8)
        axes.bar_label(bars, [f"{number:,}" for number in numbers], fontsize=9, color=INK, padding=2)
        axes.set_xticks(range(len(bins)), [label for label, _ in bins])
        if len(bins) > MANY_BARS:
            axes.tick_params(axis="x", labelrotation=35)
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
    return data_uri("image/svg+xml", svg.getvalue())


def histogram(values: np.ndarray, what: str) -> str:
    """How many photos have which of the `values` (n,)."""
    with _count_chart(what, "photos") as (axes, svg):
        axes.hist(values, BINS, color=BLUE)
        if values.max() >= 1000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return data_uri("image/svg+xml", svg.getvalue())


def size_map(widths: np.ndarray, heights: np.ndarray) -> str:
    """How many photos have which width and height (n,), in pixels; darker is more, on a logarithmic scale."""
    with _count_chart("width (pixels)", "height (pixels)") as (axes, svg):
        counts, x, y = np.histogram2d(widths, heights, BINS)
        mesh = axes.pcolormesh(x, y, np.ma.masked_equal(counts.T, 0), cmap=PALE_TO_DARK, rasterized=True,
                               norm=LogNorm(1, max(2, counts.max())))
        colors = axes.figure.colorbar(mesh, ax=axes, format=EngFormatter(sep=""), label="photos")
        colors.outline.set_visible(False)
    return data_uri("image/svg+xml", svg.getvalue())


@contextmanager
def _chart(xlabel: str, ylabel: str, legend: bool = False) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw into, and what becomes the SVG when the block ends; without background, as pages may be dark."""
    svg = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        axes = figure.subplots()
        yield axes, svg
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if legend:
            figure.legend(loc="outside upper left", ncols=3, fontsize=9)
        figure.savefig(svg, format="svg", metadata=NO_METADATA, transparent=True)


@contextmanager
def _count_chart(xlabel: str, ylabel: str) -> Iterator[tuple[Axes, io.BytesIO]]:
    """As `_chart`; the grid lies behind bars, and large numbers on the y axis are short."""
    with _chart(xlabel, ylabel) as (axes, svg):
        yield axes, svg
        axes.set_axisbelow(True)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
