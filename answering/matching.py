"""Inliers between the photos of two datasets, for steps that compare photos."""
from collections.abc import Iterator
from functools import lru_cache

import joblib
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from arcshard.console import progress
from retrieval.local_features import LocalFeatures, extract, verify
from shards import Dataset

KEPT = 1000  # photos whose features stay in memory, 0.6 MB each at most


class Matcher:
    """Counts the inliers of queries with gallery rows (`retrieval.state.CountInliers`); no pair is compared twice.

    Args: queries, gallery: the photos, sample i of each being row i of its embeddings.
    """

    def __init__(self, queries: Dataset, gallery: Dataset):
        self.queries, self.gallery = queries, gallery
        self.known: dict[tuple[int, int], int] = {}
        self.features = lru_cache(KEPT)(_features)

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(Q, K) of gallery rows (Q, K), by as many threads as there are cores: OpenCV lets go of the interpreter."""
        work = [(q, unknown) for q, listed in enumerate(rows.tolist())
                if (unknown := [row for row in listed if (q, row) not in self.known])]
        threads = joblib.Parallel(joblib.cpu_count(), backend="threading", return_as="generator")
        found: Iterator[list[int]] = threads(joblib.delayed(self._inliers)(q, listed) for q, listed in work)
        for counts, (q, listed) in zip(progress(found, total=len(work), unit="queries", what="compare photos",
                                                disable=not work), work):
            self.known.update(((q, row), count) for row, count in zip(listed, counts))
        return np.array([[self.known[q, row] for row in listed] for q, listed in enumerate(rows.tolist())],
                        np.int64).reshape(rows.shape)

    def _inliers(self, q: int, rows: list[int]) -> list[int]:
        query = _features(self.queries, q)
        return [len(verify(query, self.features(self.gallery, row))) for row in rows]


def _features(dataset: Dataset, i: int) -> LocalFeatures:
    return extract(simplejpeg.decode_jpeg(dataset.read(i), "RGB"))
