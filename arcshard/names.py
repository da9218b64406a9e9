"""Ids and names of landmarks. Each id is one word, since a submission separates landmark and score by a space."""
import re
from collections.abc import Collection, Iterable
from urllib.parse import unquote

from arcshard.console import UserError

MISSING = ("", "nan", "NaN", "NAN", "None", "none", "NONE", "null", "Null", "NULL", "NA", "N/A", "n/a", "<NA>", "#N/A",
           "-1")
"""What programs write where a landmark is missing; -1 is the label of photos without one."""

WHOLE_NUMBER = re.compile("-?[0-9]{1,99}")


def plain_landmark(text: str) -> str:
    """The text with _ for each run of white space, and without any at its ends."""
    return "_".join(text.split())


def check_landmarks(landmark_ids: Iterable[str], source: object) -> None:
    """Raise UserError for an id that is not one word; `source` names the table or dataset that has it."""
    wrong = [text for text in landmark_ids if text.split() != [text]]
    if wrong:
        raise UserError(f"{source} has the landmark id {wrong[0]!r} ({len(wrong):,} such ids): it is not one word, as "
                        "submissions need it; rename it in the sample table, and pack again")


def plain_landmarks(landmark_ids: list[str], source: object) -> list[str]:
    """The ids, all different, with _ for white space. Raises UserError if two become the same or one becomes empty."""
    texts: dict[str, str] = {}
    for text in landmark_ids:
        first = texts.setdefault(plain_landmark(text), text)
        if first != text:
            raise UserError(f"{source} has the classes {first!r} and {text!r}, which are the same with _ for white "
                            "space: rename one of them")
    check_landmarks(texts, source)
    return list(texts)


def sorted_landmarks(landmark_ids: Collection[str]) -> list[str]:
    """The ids in order, as numbers if all are numbers, else as text: their positions are the labels."""
    numbers = all(map(WHOLE_NUMBER.fullmatch, landmark_ids))
    return sorted(landmark_ids, key=(lambda text: (int(text), text)) if numbers else None)


def title(name: str) -> str:
    """The category of a Wikimedia Commons URL, which train_label_to_category.csv has, in words; else the name."""
    return unquote(name.rpartition("/Category:")[2]).replace("_", " ")
