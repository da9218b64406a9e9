"""What eval.json has no room for: intervals, longer lists, thresholds, classes."""
from typing import Any

from retrieval.bootstrap import interval, resampled_gaps
from retrieval.classes import mean_recall, per_class, worst
from retrieval.evaluation import Evaluation, Questions
from retrieval.metrics import recall_at_k
from retrieval.open_set import answers_at_far

WORST = 10


def details(asked: Questions, found: Evaluation) -> dict[str, Any]:
    """Plain numbers and lists, ready for JSON; labels are the dataset's."""
    answers = found.candidates.answers, found.candidates.confidences, asked.truths
    figures = per_class(answers[0], asked.truths)
    return {"gap_interval_95": interval(resampled_gaps(*answers, keys=asked.keys)),
            **{f"recall@{k}": recall_at_k(found.neighbour_labels, asked.truths, k) for k in (1, 5, 10)},
            **{f"accuracy@{k}": recall_at_k(found.candidates.labels, asked.truths, k) for k in (1, 3)},
            **{f"right_at_far_{far}": answers_at_far(*answers, far) for far in (0.01, 0.1)},
            "mean_class_recall": mean_recall(figures),
            "worst_classes": [{"label": figure.label, "queries": figure.queries, "right": figure.right,
                               "wrong": figure.wrong} for figure in worst(figures, WORST)]}
