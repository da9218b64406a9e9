"""The page of an evaluation: queries and their way to the answer step by step, and landmarks taken for another."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pages.report import choose_queries
from pages.templates import fill
from retrieval.metrics import Truths, has_landmark, is_true
from retrieval.trace import Snapshot, StepFigures

THUMBNAIL = 160  # pixels; the page's size is nearly all thumbnails, some 8 kB each


@dataclass(frozen=True)
class TracedNeighbor:
    """A gallery photo in a list, at a step."""
    photo: bytes
    """Encoded, as packed."""
    key: str
    landmark: str
    """Id and name, "" for none."""
    right: bool
    score: float
    previous_place: int
    """Its place in the list before the step, from 1; 0 if it was not there."""
    inliers: int | None
    """None where photos were not compared."""


@dataclass(frozen=True)
class TracedCandidate:
    """A landmark that may be the answer, at a step."""
    landmark: str
    right: bool
    score: float
    previous_place: int
    """As a neighbor's."""
    previous_score: float | None


@dataclass(frozen=True)
class TracedStep:
    """What a step did to a query."""
    name: str
    lists: list[list[TracedNeighbor]]
    """A list for each model, or one for all, best first; empty if the step changed nothing."""
    candidates: list[TracedCandidate]
    """Best first; empty if the step changed nothing."""
    rank: int
    """Place of the right landmark among the candidates, from 1; 0 if it is not there."""
    place: int
    """Place of the answer among the answers to all queries, by score, from 1; 0 if there is none."""


@dataclass(frozen=True)
class TracedQuery:
    """A query, and how each step changed its answer."""
    photo: bytes
    key: str
    landmark: str
    """Ids and names, "" for none."""
    answer: str
    """"" for none."""
    right: bool
    changed: bool
    """Whether a step changed the answer."""
    steps: list[TracedStep]
    """The first is the search by embeddings alone."""

    @property
    def kinds(self) -> list[str]:
        """The kinds that the page can filter by."""
        kinds = {"changed": self.changed, "missed": self.landmark != "" and not self.right, "none": self.landmark == ""}
        return [kind for kind, holds in kinds.items() if holds]


@dataclass(frozen=True)
class ConfusedPair:
    """Queries that show one landmark and were answered with another; an example photo of each side."""
    shown: str
    answered: str
    count: int
    query: bytes
    other: bytes | None
    """None if the gallery has no photo of it."""


@dataclass(frozen=True)
class GalleryData:
    """All that the page shows."""
    who: str
    """The run and the pipeline that answer."""
    split: str
    num_queries: int
    """Of the split, shown or not."""
    figures: list[StepFigures]
    """Of each step, over all queries of the split."""
    queries: dict[str, list[TracedQuery]]
    """Heading -> queries."""
    num_confused: int
    """Pairs of landmarks, shown or not."""
    confused: list[ConfusedPair]


def render(data: GalleryData) -> str:
    """The page as HTML. The same data give the same bytes."""
    shown = [query for queries in data.queries.values() for query in queries]
    counts = {kind: sum(kind in query.kinds for query in shown) for kind in ("changed", "missed", "none")}
    return fill("gallery", data=data, side=THUMBNAIL, num_shown=len(shown), counts=counts)


def choose_traced(snapshots: list[Snapshot], truths: Truths, count: int) -> dict[str, NDArray[np.int64]]:
    """Queries worth a look: heading -> their positions, none twice, at most `count` in all.

    Up to a sixth each of those that the steps mended and spoiled, the most confident first; the rest as
    `choose_queries` has it. A heading without any is left out.
    """
    first, last = (snapshot.candidates for snapshot in (snapshots[0], snapshots[-1]))
    right, was_right = (is_true(found.answers[:, None], truths)[:, 0] for found in (last, first))
    by_score, sixth = np.argsort(-last.confidences, kind="stable"), count // 6
    chosen = {"Mended: wrong before the steps, right after": by_score[(right & ~was_right)[by_score]][:sixth],
              "Spoiled: right before the steps, wrong after": by_score[(was_right & ~right)[by_score]][:sixth]}
    taken = np.concatenate(list(chosen.values()))
    rest = np.setdiff1d(by_score, taken)
    others = choose_queries(last.confidences[rest], right[rest], has_landmark(truths)[rest], count - len(taken))
    return {heading: rows for heading, rows in chosen.items() if len(rows)} | {
        heading: rest[rows] for heading, rows in others.items()}
