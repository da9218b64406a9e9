"""The submission file of Google Landmark Recognition on Kaggle."""
import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arcshard.console import UserError
from arcshard.files import write_text
from retrieval.evaluation import Evaluation, QuerySet, mean_recall, per_class, worst
from retrieval.metrics import answers_at_far, interval, recall_at_k, resampled_gaps

# What eval.json has no room for: intervals, longer lists, thresholds, classes.

WORST = 10


def details(asked: QuerySet, found: Evaluation) -> dict[str, Any]:
    """Plain numbers and lists, ready for JSON; labels are the dataset's."""
    answers = found.candidates.answers, found.candidates.confidences, asked.truths
    figures = per_class(answers[0], asked.truths)
    return {"gap_interval_95": interval(resampled_gaps(*answers, keys=asked.keys)),
            **{f"recall@{k}": recall_at_k(found.neighbor_labels, asked.truths, k) for k in (1, 5, 10)},
            **{f"accuracy@{k}": recall_at_k(found.candidates.labels, asked.truths, k) for k in (1, 3)},
            **{f"right_at_far_{far}": answers_at_far(*answers, far) for far in (0.01, 0.1)},
            "mean_class_recall": mean_recall(figures),
            "worst_classes": [{"label": figure.label, "queries": figure.queries, "right": figure.right,
                               "wrong": figure.wrong} for figure in worst(figures, WORST)]}


def write_submission(path: str | Path, ids: Sequence[str], landmark_ids: Sequence[str],
                     scores: Sequence[float] | np.ndarray) -> None:
    """Write the CSV `id,landmarks`, a row a query in the order given; it appears whole.

    landmarks is "<landmark_id> <score>", or empty where landmark_ids[i] is "". Scores are written in full
    (shortest decimal that reads back equal) and without exponent, so that their order survives any reader.
    Raises UserError for an id that occurs twice and for a landmark id with a space; ValueError for unequal
    lengths and for a score that is not finite.
    """
    _check(ids, landmark_ids)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["id", "landmarks"])
    rows.writerows((i, _answer(landmark_id, score))
                   for i, landmark_id, score in zip(ids, landmark_ids, scores, strict=True))
    write_text(path, text.getvalue())


def _answer(landmark_id: str, score: float) -> str:
    if landmark_id == "":
        return ""
    if not np.isfinite(score):
        raise ValueError(f"a score ranks its answer and must be finite, got {score} for {landmark_id}")
    return f"{landmark_id} {np.format_float_positional(score, trim='0')}"


def _check(ids: Sequence[str], landmark_ids: Sequence[str]) -> None:
    commonest, times = Counter(ids).most_common(1)[0] if ids else ("", 0)
    if times > 1:
        raise UserError(f"a submission has one row an image, got {times} images of id {commonest}: rename or "
                        "remove all but one")
    spaced = next((name for name in landmark_ids if " " in name), None)
    if spaced is not None:
        raise UserError("a submission separates landmark id and score by a space, got the landmark id "
                        f"{spaced!r}: rename it in the data and pack again")
