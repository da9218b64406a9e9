"""The report of a run as one HTML page that needs nothing else: plain data in, a string out."""
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from pages import report_figures as figures
from pages.report_charts import LEARNING, SPEED, drawn, wait_share
from pages.report_template import TEMPLATE

Scores = dict[str, dict[str, float]]
"""{split: {metric: value}}, as in eval.json."""

METRICS = {"recall@1": "recall@1", "gap": "GAP", "gap_landmark_only": "GAP, landmarks only",
           "map@100": "mAP@100"}
FAULTS = {"replaced": "rotten photos replaced", "skipped": "bad updates left out"}
THUMBNAIL = 200  # pixels; twice what a phone shows, as sharp screens want


@dataclass(frozen=True)
class Neighbor:
    """A gallery photo that was found for a query."""
    photo: bytes
    """Encoded, as packed."""
    landmark: str
    """Name or id, "" for none."""
    cosine: float


@dataclass(frozen=True)
class Query:
    """A query and its neighbors, nearest first."""
    photo: bytes
    key: str
    landmark: str
    """Name or id, "" for none."""
    neighbors: list[Neighbor]


@dataclass(frozen=True)
class ReportData:
    """All that the page shows."""
    run: str
    packed: int
    """Photos in all splits of the dataset."""
    rejected: int
    """Photos that could not be packed."""
    untrained: Scores
    """Empty if never measured."""
    trained: Scores
    metrics: list[dict[str, Any]]
    """Lines of metrics.jsonl, then those of validation.jsonl."""
    views: NDArray[np.uint8]
    """(B, S, S, 3) RGB, training images as the model sees them."""
    split: str
    """Where the queries come from."""
    cosines: dict[str, NDArray[np.float32]]
    """Label -> cosines (n,), n > 0, of that split's queries to neighbors of one kind; up to three."""
    queries: dict[str, list[Query]]
    """Heading -> queries, see `choose_queries`."""


def render(data: ReportData) -> str:
    """The page. The same data give the same bytes; no script, and a policy that forbids any request."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.globals.update(photo=lambda jpeg: figures.photo(jpeg, THUMBNAIL), view=figures.view)
    return environment.from_string(TEMPLATE).render(
        data=data, tiles=tiles(data), rows=score_rows(data), learning=drawn(LEARNING, data.metrics),
        speed=drawn(SPEED, data.metrics), wait=wait_share(data.metrics),
        cosines=figures.histogram(data.cosines, "cosine to the neighbor") if data.cosines else None)


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
            *((name, f"{count:,}") for name, count in counted.items())]


def score_rows(data: ReportData) -> list[tuple[str, str, str, str, str]]:
    """Rows (split, metric, untrained, trained, change)."""
    return [(split, name, _figure(data.untrained.get(split, {}).get(metric)), _figure(scores[metric]),
             _change(data.untrained.get(split, {}).get(metric), scores[metric]))
            for split, scores in data.trained.items() for metric, name in METRICS.items() if metric in scores]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _change(before: float | None, after: float) -> str:
    return "–" if before is None else f"{after - before:+.3f}".replace("-", "−")
