"""The submission of Google Landmark Recognition on Kaggle, and the files that the contest provides for it."""
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcshard.console import UserError
from arcshard.csv_table import read_table, write_table
from arcshard.names import check_landmarks

COLUMNS = ["id", "landmarks"]
PUBLIC_TRAIN = 1_580_470  # photos of Google Landmark Recognition 2020 that anyone may see
TEST_PHOTOS = 117_577  # of Google Landmarks v2, as https://github.com/cvdfoundation/google-landmark counts them
RERUN_HOURS = 12  # that Kaggle gives the hidden rerun


def read_sample(path: Path) -> list[str]:
    """Ids of a sample_submission.csv in its order. Raises UserError for another table and for an id twice."""
    try:
        ids = [id for id, _ in read_table(path, COLUMNS)]
    except ValueError as error:
        raise UserError(f"{path} {error}: give Kaggle's sample_submission.csv") from None
    twice = next((id for id, times in Counter(ids).items() if times > 1), None)
    if twice is not None:
        raise UserError(f"{path} has {twice} more than once: give Kaggle's file as it came")
    return ids


def in_sample_order(ids: Sequence[str], sample: Sequence[str], path: Path) -> list[int]:
    """Place in `ids` of each id of the sample. Raises UserError unless both hold the same ids, each once."""
    place = {id: i for i, id in enumerate(ids)}
    missing, extra = [id for id in sample if id not in place], place.keys() - set(sample)
    if missing or extra:
        one = missing[0] if missing else min(extra)
        raise UserError(f"the photos are not those of {path}: {len(missing):,} of its ids have no photo, and "
                        f"{len(extra):,} photos are not among them, such as {one}: check the folder of photos")
    return [place[id] for id in sample]


def is_public_train(path: Path) -> bool:
    """Whether a train.csv is the public one: the hidden rerun mounts a smaller train set under the same name."""
    with open(path, "rb") as f:
        return sum(1 for _ in f) - 1 == PUBLIC_TRAIN


def budget(photos: int, seconds: float) -> str:
    """A sentence: the rate at which so many photos (at least 1) were answered, and the contest's hours at that rate."""
    hours = TEST_PHOTOS * seconds / photos / 3600
    limit = f"of its {RERUN_HOURS} h" if hours <= RERUN_HOURS else f"and it gives {RERUN_HOURS} h"
    return (f"{photos:,} photos in {seconds:,.1f} s: {photos / seconds:,.1f}/s; the contest's {TEST_PHOTOS:,} photos "
            f"would take {hours:,.1f} h {limit}")


def write_submission(path: str | Path, ids: Sequence[str], landmark_ids: Sequence[str],
                     scores: Sequence[float] | np.ndarray) -> None:
    """Write the CSV `id,landmarks`, a row a query in the order given; it appears whole.

    landmarks is "<landmark_id> <score>", or empty where landmark_ids[i] is "". Scores are written in full
    (shortest decimal that reads back equal) and without exponent, so that their order survives any reader.
    Raises UserError for an id that occurs twice and for a landmark id with white space; ValueError for unequal
    lengths and for a score that is not finite.
    """
    _check(ids, landmark_ids)
    write_table(path, COLUMNS, ((i, _answer(landmark_id, score))
                                for i, landmark_id, score in zip(ids, landmark_ids, scores, strict=True)))


def _answer(landmark_id: str, score: float) -> str:
    if landmark_id == "":
        return ""
    if not np.isfinite(score):
        raise ValueError(f"the score of landmark {landmark_id} is {score}: give a finite one")
    return f"{landmark_id} {np.format_float_positional(score, trim='0')}"


def _check(ids: Sequence[str], landmark_ids: Sequence[str]) -> None:
    commonest, times = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if times > 1:
        raise UserError(f"{times} images have the id {commonest}, and a submission has one row for each id: rename or "
                        "remove all but one")
    check_landmarks(filter(None, dict.fromkeys(landmark_ids)), "the dataset")
