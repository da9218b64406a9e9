"""When no answer should be believed: the score up to which a photo probably shows no landmark of the gallery.

evaluate.py fits it on half of the photos without landmark, measures it on the other half, and writes
RUN/no-landmark.json (with a pipeline: RUN/no-landmark-PIPELINE.json). Whoever shows an answer to people reads it back:

    known = load_threshold(run, pipeline, [index.gallery.provenance for index in indexes])
    if known and verdict(score_of_the_best_candidate, known.score):
        print("probably no landmark")

A submission needs no verdict: GAP only ranks the answers.
"""
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcshard.files import write_text
from arcshard.untrusted import parse_json
from retrieval.evaluation import folds
from retrieval.metrics import NO_LANDMARK, Truths, has_landmark, impostor_threshold, is_true
from retrieval.pipeline import Pipeline, write_pipeline
from retrieval.store import Provenance

FORMAT = "arcshard-no-landmark-1"
FILE = "no-landmark"


@dataclass(frozen=True)
class Threshold:
    """A fitted threshold, and what it does to the queries that it was not fitted on.

    A false answer is any answer to a photo without landmark: the false positive identification rate of open-set
    identification, which does not depend on how many of the photos show none.
    """
    score: float
    """Up to it, the best candidate's score means: probably no landmark."""
    false_answers: float
    """Wanted share of photos without landmark that are answered all the same."""
    fitted_on: int
    """Photos without landmark, at least one."""
    measured_on: int
    """Other photos without landmark."""
    measured: float
    """Share of those that are answered all the same; 0 of none."""
    landmarks: int
    """Photos with a landmark; none was used to fit."""
    right: float
    """Share of those whose answer is right and above the threshold."""
    right_before: float
    """Share of those whose answer is right."""

    def __str__(self) -> str:
        return (f"probably no landmark: best score up to {self.score:.4g}, for {self.false_answers:.0%} of "
                f"{self.fitted_on:,} photos without landmark to be answered; of {self.measured_on:,} others "
                f"{self.measured:.1%} are. Of {self.landmarks:,} photos with one, {self.right:.1%} are answered right "
                f"above it, {self.right_before:.1%} without it.")


def verdict(scores: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Whether photos probably show no landmark, by the scores of their best candidates (-inf: there is none)."""
    return ~(np.asarray(scores, np.float64) > threshold)


def fit_threshold(labels: ArrayLike, scores: ArrayLike, truths: Truths, keys: Sequence[str],
                  false_answers: float = 0.05) -> Threshold | None:
    """The least threshold above which at most a share of the photos without landmark is answered.

    Args: as in `retrieval.metrics.gap`, of queries with and without landmark. The half of those without that is fitted
    on is told by key. None if it is empty. Raises ValueError for a share outside 0 to 1.
    """
    labels = np.asarray(labels)
    scores = np.where(labels == NO_LANDMARK, -np.inf, np.asarray(scores, np.float64))
    shown, half = has_landmark(truths), folds(keys)
    fitted_on, others = scores[~shown & (half == 0)], scores[~shown & (half == 1)]
    if not len(fitted_on):
        return None
    threshold = impostor_threshold(fitted_on, false_answers)
    right = is_true(labels[:, None], truths)[:, 0][shown]
    refused = verdict(scores, threshold)
    return Threshold(threshold, false_answers, len(fitted_on), len(others), _share(~verdict(others, threshold)),
                     int(shown.sum()), _share(right & ~refused[shown]), _share(right))


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0


# A threshold belongs to scores of one kind: the same steps on the same gallery, embedded by the same weights and views.

def save_threshold(path: Path, threshold: Threshold, pipeline: Pipeline, galleries: Sequence[Provenance]) -> None:
    """Write JSON that `load_threshold` finds. galleries: of each run, where its gallery's embeddings come from."""
    write_text(path, json.dumps({"format": FORMAT, **_of(pipeline, galleries), **asdict(threshold)}, indent=2) + "\n")


def load_threshold(run: Path, pipeline: Pipeline, galleries: Sequence[Provenance]) -> Threshold | None:
    """The threshold among the run's that belongs to these steps and galleries; None if none does."""
    for path in sorted(run.glob(f"{FILE}*.json")):
        try:
            fields: dict[str, Any] = parse_json(path.read_bytes())
            of = {name: fields.pop(name) for name in ("format", *_of(pipeline, galleries))}
            if of == {"format": FORMAT, **_of(pipeline, galleries)}:
                return Threshold(**{name: kind(fields[name]) for name, kind in KINDS.items()})
        except (ValueError, AttributeError, KeyError, TypeError):
            continue  # another version's, or damaged: evaluate.py writes it anew
    return None


KINDS = {"score": float, "false_answers": float, "fitted_on": int, "measured_on": int, "measured": float,
         "landmarks": int, "right": float, "right_before": float}


def _of(pipeline: Pipeline, galleries: Sequence[Provenance]) -> dict[str, Any]:
    return {"pipeline": write_pipeline(pipeline), "galleries": [asdict(gallery) for gallery in galleries]}
