"""The first candidates re-ranked by a learned model."""
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrieval.reranker import Reranker
from retrieval.state import Candidates, Neighbors, State, Step, ranked
from retrieval.steps.non_landmarks import query_sides, similarities

NON_LANDMARKS = 10  # nearest, whose cosines are features
Features = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Rerank(Step):
    """The first candidates' scores become the probabilities that they are right; the others are dropped.

    2nd place 2020 (W2): all its post-processing, of which this is the last, was worth +0.065 public and +0.055 private
    GAP. Queries that it was fitted on are judged by boosters that have not seen them.
    """

    needs = frozenset({"non_landmarks", "all_queries"})

    model: str
    """File that python -m retrieval rerank wrote, fitted after the same steps as stand before this one; in a list in
    YAML, from that file's folder."""
    answer: Literal["likeliest", "second-place"] = "likeliest"
    """second-place: the second candidate if it is the likeliest, else the first, though another or none at all were
    likelier; the score is its probability, or that any landmark is right where none is the likeliest (theirs)."""

    def __call__(self, state: State) -> State:
        reranker = self.reranker()
        found, features = first_candidates(state.candidates, reranker.top), features_of(state, reranker.top)
        if list(features) != reranker.names:
            raise ValueError(f"{self.model} was fitted on other features than these steps and runs have: fit it again "
                             "with python -m retrieval rerank")
        judged = reranker.probabilities(np.column_stack(list(features.values())), state.keys)
        if self.answer == "second-place":
            return replace(state, candidates=first_or_second(found, judged))
        scores = np.where(found.scores > -np.inf, judged[:, :-1], -np.inf)
        return replace(state, candidates=ranked(Candidates(found.labels, scores)))

    def reranker(self) -> Reranker:
        """As read from its file. Raises UserError if that is none."""
        return Reranker.load(Path(self.model))


def first_or_second(found: Candidates, judged: NDArray[np.float64]) -> Candidates:
    """One candidate a query, (Q, 1), of the first `top`, (Q, top); judged: their probabilities, then that of none.

    get_lgbm_prediction_map of 2nd place 2020 (generate_submissions.ipynb at 683f021).
    """
    likeliest, top, rows = judged.argmax(axis=1), found.labels.shape[1], np.arange(len(judged))
    second = (likeliest == 1) & (top > 1) & (found.scores[:, min(1, top - 1)] > -np.inf)
    chosen = second.astype(np.int64)
    scores = np.where(likeliest == top, 1 - judged[:, top], judged[rows, chosen])
    scores[found.scores[:, 0] == -np.inf] = -np.inf
    return Candidates(found.labels[rows, chosen][:, None], scores[:, None])


def features_of(state: State, top: int) -> Features:
    """Each feature (Q,) by name, NaN where it has no value; the number that ends a name is the candidate's.

    After 2nd place 2020 (generate_submissions.ipynb at 683f021, and W2): the candidates' scores and the lead of the
    first; of each list of neighbors, how near and how many those with the candidate's label are; their inliers, where
    photos were compared; how many queries the label answers, and with what scores; the query's cosines to its ten
    nearest non-landmarks. Raises ValueError without candidates and without non-landmarks.
    """
    found = first_candidates(state.candidates, top)
    features: Features = {}
    for i in range(top):
        there = found.scores[:, i] > -np.inf
        features |= {f"{name}_{i}": np.where(there, values, np.nan)
                     for name, values in _of_candidate(state, found, i).items()}
    near = np.full((len(found.labels), NON_LANDMARKS), np.nan)
    known = similarities(*query_sides(state), NON_LANDMARKS, state.device)
    near[:, :known.shape[1]] = known
    return features | {"lead": features["score_0"] - features[f"score_{min(1, top - 1)}"],
                       **{f"non_landmark_{j}": near[:, j] for j in range(NON_LANDMARKS)}}


def first_candidates(found: Candidates | None, top: int) -> Candidates:
    """Exactly `top` a query, score -inf where it has fewer. Raises ValueError if there are no candidates yet."""
    if found is None:
        raise ValueError("rerank needs candidates: put vote before it")
    labels, scores = found.labels[:, :top], found.scores[:, :top]
    missing = (0, 0), (0, top - labels.shape[1])
    return Candidates(np.pad(labels, missing, constant_values=-1), np.pad(scores, missing, constant_values=-np.inf))


def _of_candidate(state: State, found: Candidates, i: int) -> Features:
    """Features of each query's candidate i; any number where it has none."""
    features = {"score": found.scores[:, i], **_as_answer(found, found.labels[:, i])}
    for m, listed in enumerate(state.neighbors):
        same = (state.gallery_labels[listed.rows] == found.labels[:, i, None]) & (listed.scores > -np.inf)
        features |= {f"{name}_{m}": values for name, values in _as_neighbors(listed, same).items()}
    return features


def _as_neighbors(listed: Neighbors, same: NDArray[np.bool_]) -> Features:
    """Of the neighbors that a mask (Q, K) names."""
    number = same.sum(axis=1)
    sums = np.where(same, listed.scores, 0).sum(axis=1, dtype=np.float64)
    nearest = np.where(same, listed.scores, -np.inf).max(axis=1)
    features = {"number": number.astype(np.float64), "nearest": np.where(number > 0, nearest, np.nan),
            "mean": np.where(number > 0, sums / np.maximum(number, 1), np.nan)}
    if listed.inliers is not None:
        features["inliers"] = np.where(same, listed.inliers, 0).max(axis=1).astype(np.float64)
    return features


def _as_answer(found: Candidates, labels: NDArray[np.int64]) -> Features:
    """Of the queries that each of labels (Q,) answers: number, and mean, greatest and standard deviation of scores."""
    answered = found.confidences > -np.inf
    scores = pd.Series(found.confidences[answered]).groupby(found.answers[answered])
    features = pd.DataFrame({"answers": scores.size(), "answers_mean": scores.mean(), "answers_max": scores.max(),
                         "answers_std": scores.std(ddof=0)}).reindex(labels)
    return {str(name): features[name].to_numpy(np.float64) for name in features}
