"""Neighbors that have the query among their own neighbors."""
from dataclasses import dataclass, replace

import numpy as np

from retrieval.reciprocal import Encoder, lists_around
from retrieval.search import nearest
from retrieval.state import Matrix, Neighbors, State, Step


@dataclass(frozen=True)
class KReciprocal(Step):
    """A neighbor's score becomes weight × score + (1 - weight) × Jaccard, and each list is ranked anew.

    Jaccard, in [0, 1], is the overlap of what query and neighbor have as neighbors in both directions: k-reciprocal
    encoding, Zhong et al. 2017, arXiv 1701.08398, k1 20, k2 6, lambda (`weight`) 0.3. Theirs encodes all photos as one
    set; here queries are in nobody's encoding but their own, so that each is answered by itself, and a distance is
    1 - score. Searches the gallery for the U of its N rows within three steps of the lists: U × N × D operations.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k2 <= self.k1 or not 0 <= self.weight <= 1:
            raise ValueError("k2 must be 1 to k1, and weight 0 to 1, got "
                             f"k1 {self.k1}, k2 {self.k2}, weight {self.weight}")

    def __call__(self, state: State) -> State:
        if not state.neighbors or len(state.neighbors) != len(state.models):
            raise ValueError("k_reciprocal ranks each model's own list: put it after search and before merge")
        return replace(state, neighbors=tuple(
            self.reranked(found, model.queries, model.gallery, state.device)
            for found, model in zip(state.neighbors, state.models)))

    def reranked(self, found: Neighbors, queries: Matrix, gallery: Matrix, device: str) -> Neighbors:
        """One model's lists; a place that holds no neighbor stays one."""
        k1 = min(self.k1, len(gallery) - 1)
        firsts = nearest(queries, gallery, max(1, k1), device=device)[1]
        lists = lists_around(np.union1d(found.rows, firsts), gallery, k1, device)
        encoder = Encoder(gallery, lists, k1, self.k2)
        overlaps = np.array([encoder.overlaps(*each) for each in zip(queries, firsts.tolist(), found.rows.tolist())])
        there = found.scores > -np.inf
        mixed = self.weight * np.where(there, found.scores, 0) + (1 - self.weight) * overlaps.reshape(there.shape)
        return replace(found, scores=np.where(there, mixed, -np.inf).astype(np.float32)).ranked()
