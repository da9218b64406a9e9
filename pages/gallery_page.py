"""Queries and their answers step by step as one HTML page that needs nothing else: plain data in, a string out."""
from dataclasses import dataclass

import jinja2

from pages import report_figures as figures
from pages.gallery_template import TEMPLATE
from retrieval.trace import StepFigures

THUMBNAIL = 160  # pixels; the page's size is nearly all thumbnails, some 8 kB each


@dataclass(frozen=True)
class Neighbor:
    """A gallery photo in a list, at a step."""
    photo: bytes
    """Encoded, as packed."""
    key: str
    landmark: str
    """Id and name, "" for none."""
    right: bool
    score: float
    was: int
    """Its place in the list before the step, from 1; 0: it was not there."""
    inliers: int | None
    """None where photos were not compared."""


@dataclass(frozen=True)
class Candidate:
    """A landmark that may be the answer, at a step."""
    landmark: str
    right: bool
    score: float
    was: int
    """As a neighbor's."""
    was_score: float | None


@dataclass(frozen=True)
class Step:
    """What a step made of a query."""
    name: str
    lists: list[list[Neighbor]]
    """A list for each model, or one of all, best first; empty where the step left them as they were."""
    candidates: list[Candidate]
    """Best first; empty where the step left them as they were."""
    rank: int
    """Place of the right landmark among the candidates, from 1; 0: it is not there."""
    place: int
    """Place of the answer among those to all queries, by score, from 1; 0: there is none."""


@dataclass(frozen=True)
class Query:
    """A query and its way to the answer."""
    photo: bytes
    key: str
    landmark: str
    """Ids and names, "" for none."""
    answer: str
    """"" for none."""
    right: bool
    changed: bool
    """Whether a step changed the answer."""
    steps: list[Step]
    """The first is what the embeddings say without any."""

    @property
    def kinds(self) -> list[str]:
        """By which the page filters."""
        kinds = {"changed": self.changed, "missed": self.landmark != "" and not self.right, "none": self.landmark == ""}
        return [kind for kind, holds in kinds.items() if holds]


@dataclass(frozen=True)
class Confused:
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
    """Who answers: run and list of steps."""
    split: str
    num_queries: int
    """Of the split, shown or not."""
    figures: list[StepFigures]
    """A row a stage, over all queries of the split."""
    queries: dict[str, list[Query]]
    """Heading -> queries."""
    num_confused: int
    """Pairs of landmarks, shown or not."""
    confused: list[Confused]


def render(data: GalleryData) -> str:
    """The page. The same data give the same bytes; no script, and a policy that forbids any request."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.globals.update(photo=lambda jpeg: figures.photo(jpeg, THUMBNAIL))
    environment.filters.update(score=_score, signed=_signed)
    shown = [query for queries in data.queries.values() for query in queries]
    counts = {kind: sum(kind in query.kinds for query in shown) for kind in ("changed", "missed", "none")}
    return environment.from_string(TEMPLATE).render(data=data, num_shown=len(shown), counts=counts)


def _score(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
