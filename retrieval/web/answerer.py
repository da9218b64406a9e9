"""What the web app needs of the object that answers photos."""
from dataclasses import dataclass
from typing import Protocol

from retrieval.answers import Answer


class Unreadable(Exception):
    """A file that is no photo; the message is a short reason."""


@dataclass(frozen=True)
class Match:
    """Where a photo and a gallery photo agree."""
    picture: bytes
    """JPEG of the two side by side, a line from each inlier to its partner."""
    inliers: int


class Answerer(Protocol):
    """Answers photos one at a time; any thread may call any method at any time."""
    title: str
    """What answers, for people."""

    def answer(self, photo: bytes) -> Answer:
        """The answer to an image file. Raises Unreadable."""

    def gallery_photo(self, row: int) -> bytes:
        """JPEG of a gallery row. Raises IndexError if there is no such row."""

    def match(self, photo: bytes, row: int) -> Match:
        """The image file beside a gallery row. Raises Unreadable, and IndexError if there is no such row."""
