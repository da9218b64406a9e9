"""Ids of landmarks. They hold no white space, since a submission separates landmark and score by a space."""
from collections.abc import Iterable

from arcshard.console import UserError


def plain_landmark(text: str) -> str:
    """The text with _ for each run of white space, and without any at its ends."""
    return "_".join(text.split())


def check_landmarks(landmark_ids: Iterable[str], source: object) -> None:
    """Raise UserError for an id with white space; `source` names the table or dataset that has it."""
    spaced = [text for text in landmark_ids if plain_landmark(text) != text]
    if spaced:
        raise UserError(f"{source} has the landmark id {spaced[0]!r} ({len(spaced):,} such ids): white space separates "
                        "landmark and score in a submission; rename it in the sample table, and pack again")
