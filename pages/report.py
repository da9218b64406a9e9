"""The page of a run: what came of it and what to try, then scores, curves, training images, and queries with their
nearest neighbors."""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pages import charts
from pages.findings import LogLines, RunFigures, advice, learned, quality, speed, wait_share
from pages.templates import fill

METRICS = {"recall@1": "recall@1", "gap": "GAP", "gap_landmark_only": "GAP, landmarks only",
           "map@100": "mAP@100"}
FAULTS = {"replaced": "damaged photos replaced", "skipped": "bad updates left out"}
THUMBNAIL = 200  # pixels; twice what a phone shows, as sharp screens want


# What the page shows.


@dataclass(frozen=True)
class ShownNeighbor:
    """A gallery photo that was found for a query."""
    photo: bytes
    """Encoded, as packed."""
    landmark: str
    """Id, "" for none."""
    cosine: float
    name: str = ""
    """Of the landmark, "" where the dataset has none."""


@dataclass(frozen=True)
class ShownQuery:
    """A query and its neighbors, nearest first."""
    photo: bytes
    """Encoded, as packed."""
    key: str
    landmark: str
    """Id, "" for none."""
    neighbors: list[ShownNeighbor]
    name: str = ""
    """As a neighbor's."""


@dataclass(frozen=True)
class ReportData(RunFigures):
    """All that the page shows."""
    run: str
    packed: int
    """Photos in all splits of the dataset."""
    rejected: int
    """Photos that could not be packed."""
    views: NDArray[np.uint8]
    """(B, S, S, 3) RGB, training images as the model sees them."""
    cosines: dict[str, NDArray[np.float32]]
    """Label -> cosines (n,), n > 0, of the split's queries to neighbors of one kind; up to three."""
    queries: dict[str, list[ShownQuery]]
    """Heading -> queries, see `choose_queries`."""


def render(data: ReportData) -> str:
    """The page as HTML. The same data give the same bytes."""
    findings = {"Did it learn?": learned(data), "Is it good?": quality(data), "What limits the speed?": speed(data)}
    cosines = charts.compare_histograms(data.cosines, "cosine to the neighbor") if data.cosines else None
    return fill("report", data=data, side=THUMBNAIL, findings=findings, advice=advice(data), tiles=tiles(data),
                rows=score_rows(data), cosines=cosines, learning=draw(LEARNING, data.metrics),
                speed=draw(SPEED, data.metrics), wait=wait_share(data.metrics))


def choose_queries(cosines: NDArray[np.float32], right: NDArray[np.bool_], is_landmark: NDArray[np.bool_],
                   count: int = 24, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Queries worth a look: heading -> rows, up to a quarter of `count` each, the rest at random; none twice.

    cosines (Q,): of the nearest neighbor; right (Q,): it shows the query's landmark; is_landmark (Q,): there
    is one. At most `count` rows in all; a heading without any is left out.
    """
    by_cosine, quarter = np.argsort(-cosines, kind="stable"), count // 4
    chosen = {"Wrong, and most confident": by_cosine[(is_landmark & ~right)[by_cosine]][:quarter],
              "Without landmark, and most confident": by_cosine[~is_landmark[by_cosine]][:quarter],
              "Right, and least confident": by_cosine[right[by_cosine]][::-1][:quarter]}
    rest = np.setdiff1d(by_cosine, np.concatenate(list(chosen.values())))
    room = count - sum(len(rows) for rows in chosen.values())
    chosen["Drawn at random"] = np.random.default_rng(seed).permutation(rest)[:room]
    return {heading: rows for heading, rows in chosen.items() if len(rows)}


def tiles(data: ReportData) -> list[tuple[str, str]]:
    """Headline figures: (name, value)."""
    speeds = [line["images_per_s"] for line in data.metrics if "images_per_s" in line]
    wait = wait_share(data.metrics)
    counted = {name: sum(line[key] for line in data.metrics if key in line) for key, name in FAULTS.items()}
    return [("photos packed", f"{data.packed:,}"), ("photos rejected", f"{data.rejected:,}"),
            ("images/s in training", f"{np.median(speeds):,.1f}" if speeds else "–"),
            ("of the time waited for data", "–" if wait is None else f"{100 * wait:.1f} %"),
            *((name, f"{count:,}" if data.metrics else "–") for name, count in counted.items())]


def score_rows(data: ReportData) -> list[tuple[str, str, str, str, str]]:
    """Rows (split, metric, untrained, trained, change)."""
    return [(split, name, _figure(data.untrained.get(split, {}).get(metric)), _figure(scores[metric]),
             _change(data.untrained.get(split, {}).get(metric), scores[metric]))
            for split, scores in data.trained.items() for metric, name in METRICS.items() if metric in scores]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _change(before: float | None, after: float | None) -> str:
    return "–" if before is None or after is None else f"{after - before:+.3f}".replace("-", "−")


# Which figures of the logs are drawn, and in which unit.


@dataclass(frozen=True)
class Curve:
    key: str
    """Of the logs' lines."""
    label: str = ""
    """Where the chart has several."""
    shown: Callable[[float], float] = float
    """The value in the chart's unit."""


@dataclass(frozen=True)
class CurveChart:
    caption: str
    unit: str
    curves: tuple[Curve, ...]
    floor: float | None = None
    """Where the y axis starts; None fits the values."""


percent = lambda share: 100 * share
gigabytes = lambda megabytes: megabytes / 1000
angle_of = lambda cosine: math.degrees(math.acos(min(1.0, max(-1.0, cosine))))

LEARNING = (
    CurveChart("Training loss", "nats", (Curve("loss", "loss"), Curve("collapsed_loss", "if nothing is learned")), 0),
    CurveChart("Val photos whose nearest class center is right", "%", (Curve("val_recall@1", shown=percent),)),
    CurveChart("Val photos by the nearest train photo of a sample", "%", (
        Curve("val_photo_recall@1", "recall@1", percent), Curve("val_photo_gap", "GAP", percent))),
    CurveChart("Mean angles between val photos and class centers", "degrees", (
        Curve("target_cosine", "to their own", angle_of),  # of the mean cosine
        Curve("wrong_angle", "to the nearest other", math.degrees))),
    CurveChart("Learning rate", "", (Curve("lr"),), 0),
    CurveChart("Margin", "radians", (Curve("margin"),), 0),
    CurveChart("Length of val embeddings before they are normalized", "", (Curve("norm"),), 0),
    CurveChart("Class centers nearest to no val photo", "% of those with val photos", (
        Curve("dead_centers", shown=percent),), 0),
)
SPEED = (
    CurveChart("Throughput", "images/s", (Curve("images_per_s"),), 0),
    CurveChart("Waiting for data", "% of the time", (Curve("data_wait_share", "the process", percent),
                                                   Curve("device_wait_share", "the GPU", percent)), 0),
    CurveChart("Memory", "GB", (Curve("memory_mb", "first process", gigabytes),
                                Curve("cuda_peak_mb", "its GPU, peak", gigabytes)), 0),
)


def draw(specs: Sequence[CurveChart], metrics: LogLines) -> list[tuple[str, str]]:
    """(caption, data URI) of each chart that has a line to draw; a stage's lines do not run into the next one's."""
    begins = stage_starts(metrics)
    return [(chart.caption, charts.line_chart(lines, chart.unit, chart.floor, begins)) for chart in specs
            if (lines := [_line(curve, metrics) for curve in chart.curves if any(curve.key in m for m in metrics)])]


def stage_starts(metrics: LogLines) -> dict[str, int]:
    """Images seen when each stage began; empty for a run without stages."""
    starts: dict[str, int] = {}
    position = 0
    for line in metrics:
        if "loss" in line:
            starts.setdefault(line.get("stage", ""), position)
            position = line["position"]
    return starts if len(starts) > 1 else {}


def _line(curve: Curve, metrics: LogLines) -> charts.Line:
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
    return charts.Line(curve.label, positions, values)
