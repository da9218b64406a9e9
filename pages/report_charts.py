"""Which figures of a run's logs the report draws, in which unit."""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pages import report_figures as figures

Lines = Sequence[dict[str, Any]]
"""Of metrics.jsonl and validation.jsonl."""


@dataclass(frozen=True)
class Curve:
    key: str
    """Of the logs' lines."""
    label: str = ""
    """Where the chart has several."""
    shown: Callable[[float], float] = float
    """The value in the chart's unit."""


@dataclass(frozen=True)
class Chart:
    caption: str
    unit: str
    curves: tuple[Curve, ...]
    floor: float | None = None
    """Where the y axis starts; None fits the values."""


percent = lambda share: 100 * share
gigabytes = lambda megabytes: megabytes / 1000
angle_of = lambda cosine: math.degrees(math.acos(min(1.0, max(-1.0, cosine))))

LEARNING = (
    Chart("Training loss", "nats", (Curve("loss", "loss"), Curve("collapsed_loss", "if nothing is learned")), 0),
    Chart("Val photos whose nearest class center is right", "%", (Curve("val_recall@1", shown=percent),)),
    Chart("Angles between val photos and class centers", "degrees", (
        Curve("target_cosine", "to their own, of the mean cosine", angle_of),
        Curve("wrong_angle", "to the nearest other, mean", math.degrees))),
    Chart("Learning rate", "", (Curve("lr"),), 0),
    Chart("Margin", "radians", (Curve("margin"),), 0),
    Chart("Length of val embeddings before they are normalized", "", (Curve("norm"),), 0),
    Chart("Class centers nearest to no val photo", "% of those with val photos", (
        Curve("dead_centers", shown=percent),), 0),
)
SPEED = (
    Chart("Throughput", "images/s", (Curve("images_per_s"),), 0),
    Chart("Waiting for data", "% of the time", (Curve("data_wait_share", shown=percent),), 0),
    Chart("Memory", "GB", (Curve("memory_mb", "first rank's process", gigabytes),
                           Curve("cuda_peak_mb", "peak of its tensors on the GPU", gigabytes)), 0),
)


def drawn(charts: Sequence[Chart], metrics: Lines) -> list[tuple[str, str]]:
    """(caption, data URI) of each chart that has a line to draw; a stage's lines do not run into the next one's."""
    begins = stage_starts(metrics)
    return [(chart.caption, figures.chart(lines, chart.unit, chart.floor, begins)) for chart in charts
            if (lines := [_line(curve, metrics) for curve in chart.curves if any(curve.key in m for m in metrics)])]


def stage_starts(metrics: Lines) -> dict[str, int]:
    """Images seen when each stage began; empty for a run without stages."""
    starts: dict[str, int] = {}
    position = 0
    for line in metrics:
        if "loss" in line:
            starts.setdefault(line.get("stage", ""), position)
            position = line["position"]
    return starts if len(starts) > 1 else {}


def wait_share(metrics: Lines) -> float | None:
    """Mean share of step time that was spent waiting for data, in [0, 1]; None if never measured."""
    shares = [line["data_wait_share"] for line in metrics if "data_wait_share" in line]
    return sum(shares) / len(shares) if shares else None


def _line(curve: Curve, metrics: Lines) -> figures.Line:
    """A loss is null where no step was good."""
    positions: list[int] = []
    values: list[float] = []
    stage = None
    for line in metrics:
        if line.get(curve.key) is None:
            continue
        if positions and line.get("stage") != stage:
            positions.append(positions[-1])
            values.append(math.nan)
        stage = line.get("stage")
        positions.append(line["position"])
        values.append(curve.shown(line[curve.key]))
    return figures.Line(curve.label, positions, values)
