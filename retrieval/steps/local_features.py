"""Neighbors whose photos show the same thing as the query's."""
from dataclasses import dataclass, replace

import numpy as np

from retrieval.state import CountInliers, Neighbors, State, Step


@dataclass(frozen=True)
class LocalFeatures(Step):
    """The first k neighbors of each list gain weight × min(inliers, cap) / cap, and the list is ranked anew.

    Inliers are pairs of keypoints that agree on a homography (retrieval.local_features). 2nd place 2020 (W2): k 10,
    cap 90, by SuperPoint and SuperGlue +0.022 public and +0.017 private GAP; the hosts' baseline: cap 70.
    """

    needs = frozenset({"photos"})

    k: int = 10
    cap: int = 90
    weight: float = 1.0

    def __call__(self, state: State) -> State:
        if not state.neighbors:
            raise ValueError("local_features compares the photos of neighbors: put search before it")
        inliers = state.inliers
        if inliers is None:
            raise ValueError("local_features compares photos, but there are none: give the dataset, or take it out")
        return replace(state, neighbors=tuple(self.verified(found, inliers) for found in state.neighbors))

    def verified(self, found: Neighbors, count: CountInliers) -> Neighbors:
        """The list with inliers; a place that holds no neighbor stays one."""
        inliers = np.zeros(found.rows.shape, np.int64)
        inliers[:, :self.k] = count(found.rows[:, :self.k])
        gains = self.weight * np.minimum(inliers, self.cap) / self.cap
        return Neighbors((found.scores + gains).astype(np.float32), found.rows, inliers).ranked()
