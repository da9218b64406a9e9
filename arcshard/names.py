"""Ids of landmarks. Each is one word, since a submission separates landmark and score by a space."""
from collections.abc import Iterable

from arcshard.console import UserError


def plain_landmark(text: str) -> str:
    """The text with _ for each run of white space, and without any at its ends."""
    return "_".join(text.split())


def check_landmarks(landmark_ids: Iterable[str], source: object) -> None:
    """Raise UserError for an id that is not one word; `source` names the table or dataset that has it."""
    wrong = [text for text in landmark_ids if text.split() != [text]]
    if wrong:
        raise UserError(f"{source} has the landmark id {wrong[0]!r} ({len(wrong):,} such ids): it is not one word, as "
                        "submissions need it; rename it in the sample table, and pack again")
