"""What the web app needs of the object that answers photos."""
from dataclasses import dataclass
from typing import Protocol


class Unreadable(Exception):
    """A file that is no photo; the message is a short reason."""


@dataclass(frozen=True)
class RankedLandmark:
    """A landmark that the photo may show."""
    landmark: str
    """Its id, or "" for none."""
    name: str
    """As the raw data names it, often the address of its Wikimedia category; "" if they do not."""
    score: float


@dataclass(frozen=True)
class SimilarPhoto:
    """A gallery photo that is like the photo."""
    row: int
    """Of the gallery."""
    key: str
    landmark: str
    name: str
    cosine: float


@dataclass(frozen=True)
class Answer:
    """What is known of a photo, each list the best first."""
    candidates: list[RankedLandmark]
    neighbors: list[SimilarPhoto]


@dataclass(frozen=True)
class Match:
    """Where a photo and a gallery photo agree."""
    picture: bytes
    """JPEG of the two side by side, a line from each inlier to its partner."""
    inliers: int


class Answerer(Protocol):
    """Answers photos one at a time; every method may be called from any thread, but not from two at once."""
    title: str
    """What answers, for people."""

    def answer(self, photo: bytes) -> Answer:
        """The answer to an image file. Raises Unreadable."""

    def gallery_photo(self, row: int) -> bytes:
        """JPEG of a gallery row. Raises IndexError if there is no such row."""

    def match(self, photo: bytes, row: int) -> Match:
        """The image file beside a gallery row. Raises Unreadable, and IndexError if there is no such row."""
