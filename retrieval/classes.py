"""How each class fares: its queries, how many are answered rightly, how often it is a wrong answer."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from retrieval.metrics import NO_LANDMARK, Truths, is_true


@dataclass(frozen=True)
class ClassFigures:
    """One label's part in the answers."""
    label: int
    queries: int
    """That show it; a query of several landmarks counts for each."""
    right: int
    """Of them, answered with one of the query's labels."""
    wrong: int
    """Queries answered with it that do not show it."""

    @property
    def recall(self) -> float:
        return self.right / self.queries if self.queries else 0.0


def per_class(labels: ArrayLike, truths: Truths) -> list[ClassFigures]:
    """A row for each label that some query shows or is answered with, by label. labels: int (Q,), -1 for none."""
    labels = np.asarray(labels)
    right = is_true(labels[:, None], truths)[:, 0]
    queries: dict[int, int] = {}
    answered: dict[int, int] = {}
    for truth, hit in zip(truths, right.tolist()):
        for label in truth:
            queries[label] = queries.get(label, 0) + 1
            answered[label] = answered.get(label, 0) + hit
    missed, counts = np.unique(labels[~right & (labels != NO_LANDMARK)], return_counts=True)
    wrong = dict(zip(missed.tolist(), counts.tolist()))
    return [ClassFigures(label, queries.get(label, 0), answered.get(label, 0), wrong.get(label, 0))
            for label in sorted(queries.keys() | wrong.keys())]


def worst(figures: list[ClassFigures], n: int) -> list[ClassFigures]:
    """The n classes of least recall, of equals those with more queries, then by label; without query: left out."""
    asked = [figure for figure in figures if figure.queries]
    return sorted(asked, key=lambda figure: (figure.recall, -figure.queries, figure.label))[:n]


def mean_recall(figures: list[ClassFigures]) -> float:
    """Recall averaged over the classes with a query, each alike however many it has; 0.0 for none."""
    recalls = [figure.recall for figure in figures if figure.queries]
    return float(np.mean(recalls)) if recalls else 0.0
