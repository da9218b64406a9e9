"""Candidates judged by a learned re-ranker."""
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval.rerank_features import columns, first
from retrieval.reranker import Reranker
from retrieval.state import Candidates, State, Step, ranked


@dataclass(frozen=True)
class Rerank(Step):
    """The first candidates' scores become the probabilities that they are right; the others are dropped.

    2nd place 2020 (W2): all its post-processing, of which this is the last, was worth +0.065 public and +0.055 private
    GAP. Queries that it was fitted on are judged by boosters that have not seen them.
    """

    model: str
    """File that python -m retrieval rerank wrote, fitted after the same steps as stand before this one; in a list in
    YAML, from that file's folder."""

    def __call__(self, state: State) -> State:
        reranker = self.reranker()
        found, told = first(state.candidates, reranker.top), columns(state, reranker.top)
        if list(told) != reranker.names:
            raise ValueError(f"{self.model} was fitted on other features than these steps and runs have: fit it again "
                             "with python -m retrieval rerank")
        judged = reranker.probabilities(np.column_stack(list(told.values())), state.keys)[:, :-1]
        scores = np.where(found.scores > -np.inf, judged, -np.inf)
        return replace(state, candidates=ranked(Candidates(found.labels, scores)))

    def reranker(self) -> Reranker:
        """As read from its file. Raises UserError if that is none."""
        return Reranker.load(Path(self.model))
