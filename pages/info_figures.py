"""Charts of the info page as data URIs of SVG. The same input gives the same bytes."""
import base64
import io
from collections.abc import Callable

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from pages.report_figures import BLUE, INK, NO_METADATA, STYLE

BINS = 40
MANY = 7  # bars; the labels of more would touch
PALE_TO_DARK = LinearSegmentedColormap.from_list("blues", ["#d3e4f5", BLUE, "#051f3b"])


def octave_bars(bins: list[tuple[str, int]], what: str, of: str) -> str:
    """Bars with their numbers on top: `of` what is counted there are how many of each `what`."""
    def fill(axes: Axes) -> None:
        numbers = [number for _, number in bins]
        bars = axes.bar(range(len(bins)), numbers, color=BLUE, width=0.8)
        axes.bar_label(bars, [f"{number:,}" for number in numbers], fontsize=7, color=INK, padding=2)
        axes.set_xticks(range(len(bins)), [label for label, _ in bins])
        if len(bins) > MANY:
            axes.tick_params(axis="x", labelrotation=35)
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
        _label(axes, what, of)
    return _chart(fill)


def histogram(values: np.ndarray, what: str) -> str:
    """How many photos have which of the `values` (n,)."""
    def fill(axes: Axes) -> None:
        axes.hist(values, BINS, color=BLUE)
        if values.max() >= 1000:
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _label(axes, what, "photos")
    return _chart(fill)


def size_map(widths: np.ndarray, heights: np.ndarray) -> str:
    """How many photos have which width and height (n,), in pixels; darker is more, on a logarithmic scale."""
    def fill(axes: Axes) -> None:
        counts, x, y = np.histogram2d(widths, heights, BINS)
        drawn = axes.pcolormesh(x, y, np.ma.masked_equal(counts.T, 0), cmap=PALE_TO_DARK, rasterized=True,
                                norm=LogNorm(1, max(2, counts.max())))
        colors = axes.figure.colorbar(drawn, ax=axes, format=EngFormatter(sep=""), label="photos")
        colors.outline.set_visible(False)
        _label(axes, "width (pixels)", "height (pixels)")
    return _chart(fill)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_axisbelow(True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))


def _chart(fill: Callable[[Axes], None]) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 2.9), layout="constrained")
        fill(figure.subplots())
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", metadata=NO_METADATA, transparent=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}"
