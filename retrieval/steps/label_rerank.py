"""Neighbors of the landmark that the query is taken for, before all others."""
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from arcshard.console import progress
from retrieval.metrics import NO_LANDMARK
from retrieval.search import nearest
from retrieval.state import Matrix, Neighbors, State, Step, Vectors, own_lists
from retrieval.store import Embeddings

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class LabelRerank(Step):
    """Lists of neighbors ranked anew by the query's landmark, for retrieval (see map@100); the answers stay.

    first: photos of that landmark before all others, and behind them, in the place of the last others, those of the
    gallery that were not listed, by cosine. Sort and insert step of Yokoo et al. 2020, arXiv 2003.11211 (1st place of
    retrieval 2019): +6.6 mAP@100 on Google Landmarks v2. soft: a neighbor's score gains `same` × c if its landmark is
    the query's, and loses `other` × c if not; 1st place 2021 (Kaggle discussion 277099): 1 and 0.1.
    """

    how: Literal["first", "soft"] = "first"
    same: float = 1.0
    """Of soft alone."""
    other: float = 0.1
    """Of soft alone."""
    store: str | None = None
    """Embeddings of photos with known landmarks, by the same run: query and gallery photo have the landmark of the
    nearest, c being the gallery photo's cosine to it, as theirs; for a gallery without labels, such as the index of
    Google Landmarks. In a list in YAML, from that file's folder. null: the query's landmark is its answer so far, the
    gallery's are known, and c is 1."""

    def __call__(self, state: State) -> State:
        lists = own_lists(state, "label_rerank")
        if self.store:
            train = Embeddings.load(Path(self.store))
            labeled = [self.labeled(found, model, train, state.device) for found, model in lists]
            return replace(state, neighbors=tuple(self.reranked(found, model, *known)
                                                  for (found, model), known in zip(lists, labeled)))
        if state.candidates is None:
            raise ValueError("label_rerank ranks by the query's answer: put vote before it")
        known = state.candidates.answers, state.gallery_labels, np.ones(len(state.gallery_labels), np.float32)
        return replace(state, neighbors=tuple(self.reranked(found, model, *known) for found, model in lists))

    def labeled(self, found: Neighbors, model: Vectors, train: Embeddings, device: str) -> tuple[Rows, Rows, Matrix]:
        """Labels (Q,) of the queries, labels and cosines (N,) of the gallery; of soft only where a row is listed."""
        rows = np.unique(found.rows) if self.how == "soft" else np.arange(len(model.gallery))
        labels, cosines = np.full(len(model.gallery), NO_LANDMARK), np.zeros(len(model.gallery), np.float32)
        scores, at = nearest(model.gallery[rows], train.vectors, 1, device=device)
        labels[rows], cosines[rows] = train.labels[at[:, 0]], scores[:, 0]
        return train.labels[nearest(model.queries, train.vectors, 1, device=device)[1][:, 0]], labels, cosines

    def reranked(self, found: Neighbors, model: Vectors, asked: Rows, labels: Rows, cosines: Matrix) -> Neighbors:
        """One model's lists, by the labels (Q,) of the queries, -1 for none, and (N,) of the gallery."""
        if self.how == "first":
            return first(found, model, asked, labels)
        gains = np.where(labels[found.rows] == asked[:, None], self.same, -self.other) * cosines[found.rows]
        gains *= (asked != NO_LANDMARK)[:, None]
        return replace(found, scores=(found.scores + gains).astype(np.float32)).ranked()


def first(found: Neighbors, model: Vectors, asked: Rows, labels: Rows) -> Neighbors:
    """Lists (Q, K) with all photos of the query's label before others; those not listed take the last others' places.

    So that they rank so, scores rise by the spread of their list and 2 more for the listed, 0 to 1 for the inserted.
    """
    scores, rows = found.scores.copy(), found.rows.copy()
    for q, label in enumerate(progress(asked, unit="queries", what="label_rerank")):
        there = scores[q] > -np.inf
        if label == NO_LANDMARK or not there.any():
            continue
        same = there & (labels[rows[q]] == label)
        top, low = scores[q, there].max(), scores[q, there].min()
        scores[q, same] += top - low + 2
        room = np.flatnonzero(~same)[::-1]  # the last places first; lists are ranked, so empty ones are the last
        missing = np.setdiff1d(np.flatnonzero(labels == label), rows[q, same])
        cosines: Matrix = model.gallery[missing].astype(np.float32) @ model.queries[q]
        added = np.lexsort((missing, -cosines))[:len(room)]
        scores[q, room[:len(added)]] = top + (1 + cosines[added]) / 2  # at most top + 1
        rows[q, room[:len(added)]] = missing[added]
    return Neighbors(scores, rows).ranked()
