"""What an answer says about one photo, ready for people and JSON."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A landmark that the photo may show."""
    landmark: str | None
    """Its id; None for no landmark."""
    name: str
    """As the raw data names it, often the address of its Wikimedia category; "" if they do not."""
    score: float
    """By which answers rank, in the units of the pipeline."""


@dataclass(frozen=True)
class Neighbor:
    """A gallery photo that is like the photo."""
    row: int
    """Of the gallery."""
    id: str
    landmark: str | None
    """None for a photo of no landmark."""
    name: str
    """Of the landmark."""
    similarity: float
    """Cosine of the embeddings."""


@dataclass(frozen=True)
class Answer:
    """The best landmark for a photo, and how it was found; each list begins with the best."""
    landmark: str | None
    """Its id; None for no landmark, or a photo that cannot be read."""
    name: str
    score: float
    candidates: list[Candidate]
    neighbors: list[Neighbor]
    probably_no_landmark: bool = False
    """Whether the score is up to the threshold that evaluate.py fitted for this run, gallery and pipeline; the landmark
    is then the least unlikely. False too where none was fitted."""
    unreadable: str = ""
    """Why the photo cannot be read; "" if it can."""
