"""Neighbors that have the query among their own: k-reciprocal encoding, Zhong et al. 2017, arXiv 1701.08398."""
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from arcshard.console import progress
from retrieval.search import nearest
from retrieval.state import Matrix, Neighbors, State, Step, own_lists

Lists = dict[int, list[int]]
"""Of a gallery row: itself, then its nearest others."""
Weights = dict[int, float]
"""Of a photo: gallery rows with weights of sum 1, or nothing."""

KEPT = 100_000  # encodings in memory, of about 4 kB


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
        if not 1 <= self.k2 <= self.k1:
            raise ValueError(f"k2 is {self.k2}: give 1 to k1, which is {self.k1}")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight}: give 0 to 1")

    def __call__(self, state: State) -> State:
        return replace(state, neighbors=tuple(self.reranked(found, model.queries, model.gallery, state.device)
                                              for found, model in own_lists(state, "k_reciprocal")))

    def reranked(self, found: Neighbors, queries: Matrix, gallery: Matrix, device: str) -> Neighbors:
        """One model's lists; a place that holds no neighbor stays one."""
        k1 = min(self.k1, len(gallery) - 1)
        firsts = nearest(queries, gallery, max(1, k1), device=device)[1]
        lists = lists_around(np.union1d(found.rows, firsts), gallery, k1, device)
        encoder = Encoder(gallery, lists, k1, self.k2)
        each = progress(zip(queries, firsts.tolist(), found.rows.tolist()), total=len(queries), unit="queries",
                        what="k_reciprocal")
        overlaps = np.array([encoder.overlaps(*of_query) for of_query in each])
        there = found.scores > -np.inf
        mixed = self.weight * np.where(there, found.scores, 0) + (1 - self.weight) * overlaps.reshape(there.shape)
        return replace(found, scores=np.where(there, mixed, -np.inf).astype(np.float32)).ranked()


class Encoder:
    """Encodes photos by their k1-reciprocal neighbors in the gallery, smoothed over their k2 nearest (section 3).

    Args:
        gallery: (N, D), unit rows.
        lists: those of all rows within three steps of the rows to compare (`lists_around`), k1 others each.
    """

    def __init__(self, gallery: Matrix, lists: Lists, k1: int, k2: int):
        self.gallery, self.lists, self.k1, self.k2 = gallery, lists, k1, k2
        self.reciprocal = lru_cache(KEPT)(self._reciprocal)
        self.encoding = lru_cache(KEPT)(self._encoding)
        self.smooth = lru_cache(KEPT)(self._smooth)

    def overlaps(self, query: Matrix, firsts: list[int], rows: list[int]) -> list[float]:
        """Jaccard of the query (D,), whose k1 nearest rows are `firsts`, with each of `rows`, in [0, 1]."""
        cosines = self.gallery[firsts] @ query
        mutual = {row for row, cosine in zip(firsts, cosines) if cosine > self._reach(row)}
        own = self._weights(query, self._expanded(mutual))
        mine = mean([own, *(self.encoding(row) for row in firsts[:self.k2 - 1])])
        return [jaccard(mine, self.smooth(row)) for row in rows]

    def _reach(self, row: int) -> float:
        """Cosine of a row to its k1-th neighbor: what is nearer would be among them."""
        return float(self.gallery[self.lists[row][self.k1]] @ self.gallery[row])

    def _reciprocal(self, row: int, k: int) -> frozenset[int]:
        """R(row, k): rows among the first k that have it among theirs, itself included."""
        return frozenset(other for other in self.lists[row][:k + 1] if row in self.lists[other][:k + 1])

    def _expanded(self, mutual: Iterable[int]) -> set[int]:
        """R*: joined by each member's R(k1 / 2) of which more than two thirds are members."""
        members = frozenset(mutual)
        halves = (self.reciprocal(row, round(self.k1 / 2)) for row in members)
        return set(members).union(*(half for half in halves if 3 * len(half & members) > 2 * len(half)))

    def _weights(self, vector: Matrix, rows: set[int]) -> Weights:
        """exp(cosine - 1) of each row, to the sum of 1."""
        listed = sorted(rows)
        weights = np.exp((self.gallery[listed] @ vector).astype(np.float64) - 1)
        return dict(zip(listed, (weights / weights.sum()).tolist())) if listed else {}

    def _encoding(self, row: int) -> Weights:
        return self._weights(self.gallery[row], self._expanded(self.reciprocal(row, self.k1)))

    def _smooth(self, row: int) -> Weights:
        return mean([self.encoding(other) for other in self.lists[row][:self.k2]])


def mean(parts: list[Weights]) -> Weights:
    """Of weights; what a part lacks is 0."""
    sums: Counter[int] = Counter()
    for part in parts:
        sums.update(part)
    return {row: value / len(parts) for row, value in sums.items()}


def jaccard(a: Weights, b: Weights) -> float:
    """Sum of the lesser weights over that of the greater, 0 if either is empty."""
    lesser = sum(min(value, b[row]) for row, value in a.items() if row in b)
    return lesser / (sum(a.values()) + sum(b.values()) - lesser) if lesser else 0.0


def lists_around(rows: NDArray[np.int64], gallery: Matrix, k: int, device: str = "cpu") -> Lists:
    """The lists, of k others, of `rows` and of all rows within three steps of them.

    So far an Encoder looks: a row is smoothed over others, which are encoded by others, which are expanded by others.
    """
    known: Lists = {}
    for _ in range(4):
        rows = np.setdiff1d(rows, np.fromiter(known, np.int64, len(known)))
        if not len(rows):
            break
        found = nearest(gallery[rows], gallery, k + 1, device=device)[1]
        others = [[other for other in near if other != row][:k] for row, near in zip(rows.tolist(), found.tolist())]
        known.update((row, [row, *near]) for row, near in zip(rows.tolist(), others))
        rows = np.unique(found)
    return known
