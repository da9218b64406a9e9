"""What a code contest on Kaggle hands out: the sample submission, and a train set that tells which run this is."""
import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from arcshard.console import UserError

PUBLIC_TRAIN = 1_580_470  # photos of Google Landmark Recognition 2020 that anyone may see
TEST_PHOTOS = 117_577  # of Google Landmarks v2, as https://github.com/cvdfoundation/google-landmark counts them
RERUN_HOURS = 12  # that Kaggle gives the hidden rerun


def read_sample(path: Path) -> list[str]:
    """Ids of a sample_submission.csv in its order. Raises UserError for another table and for an id twice."""
    with open(path, newline="", encoding="utf-8-sig") as f:
        rows = csv.DictReader(f)
        if list(rows.fieldnames or []) != ["id", "landmarks"]:
            raise UserError(f"a sample submission has the columns id,landmarks; {path} has "
                            f"{','.join(rows.fieldnames or []) or 'none'}: give Kaggle's sample_submission.csv")
        ids = [row["id"] for row in rows]
    twice = next((id for id, times in Counter(ids).items() if times > 1), None)
    if twice is not None:
        raise UserError(f"a sample submission has one row an image; {path} has {twice} more than once: "
                        "give Kaggle's file as it came")
    return ids


def in_sample_order(ids: Sequence[str], sample: Sequence[str], path: Path) -> list[int]:
    """Place in `ids` of each id of the sample. Raises UserError unless both hold the same ids, each once."""
    place = {id: i for i, id in enumerate(ids)}
    missing, extra = [id for id in sample if id not in place], place.keys() - set(sample)
    if missing or extra:
        one = missing[0] if missing else min(extra)
        raise UserError(f"a submission answers exactly the ids of {path}, but {len(missing):,} of them have no photo "
                        f"and {len(extra):,} photos are not among them, such as {one}: check the folder of photos")
    return [place[id] for id in sample]


def is_public_train(path: Path) -> bool:
    """Whether a train.csv is the public one: the hidden rerun mounts a smaller train set under the same name."""
    with open(path, "rb") as f:
        return sum(1 for _ in f) - 1 == PUBLIC_TRAIN


def budget(photos: int, seconds: float) -> str:
    """Sentence on the rate of answering so many photos (at least 1), and on the contest's time at that rate."""
    hours = TEST_PHOTOS * seconds / photos / 3600
    limit = f"of its {RERUN_HOURS} h" if hours <= RERUN_HOURS else f"and it gives {RERUN_HOURS} h"
    return (f"{photos:,} photos in {seconds:,.1f} s: {photos / seconds:,.1f}/s; the contest's {TEST_PHOTOS:,} photos "
            f"would take {hours:,.1f} h {limit}")
