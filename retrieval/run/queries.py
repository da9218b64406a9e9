"""Open a dataset's val and test splits as queries to its train split, embedded by one or several runs."""
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import joblib
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from arcshard.console import UserError, progress
from retrieval import Embeddings, QuerySet, Vectors
from retrieval.local_features import LocalFeatures, extract, verify
from retrieval.run.embed import GALLERY, embed_split, store, stores
from retrieval.run.model import RunModel
from shards import CacheConfig, Dataset, splits

KEPT = 1000  # photos whose local features stay in memory, 0.6 MB each at most


@dataclass(frozen=True)
class OpenQueries:
    """The query splits of a dataset."""
    gallery: Dataset
    """Photo i is row i of the gallery's embeddings."""
    photos: dict[str, Dataset]
    """Of each split; photo i is query i."""
    sets: dict[str, QuerySet]
    """Of each split."""


def open_queries(models: Sequence[RunModel], data: str, folders: Sequence[Path | None]) -> OpenQueries:
    """Embed the gallery and every query split by each model, or read the embeddings that its run has stored.

    Args:
        data: dataset, a folder or s3://…
        folders: of each model's run, where its embeddings are kept; None: nothing is read or kept.

    Raises UserError as `query_splits` does.
    """
    cache = models[0].cache
    photos = {split: Dataset(data, split, cache) for split in query_splits(data, cache)}
    gallery = Dataset(data, GALLERY, cache)
    embedded = [embed_all(model, [gallery, *photos.values()], folder and stores(folder, model.trained_on, gallery))
                for model, folder in zip(models, folders, strict=True)]
    return OpenQueries(gallery, photos, {
        split: query_set(models, embedded, dataset, Matcher(dataset, gallery)) for split, dataset in photos.items()})


def query_splits(data: str, cache: CacheConfig) -> list[str]:
    """The dataset's val and test splits. Raises UserError if it has none, or no gallery."""
    known = splits(data, cache)
    queries = [*filter(holds_queries, known)]
    if not queries or GALLERY not in known:
        raise UserError(f"{data} has only {', '.join(known)}, but an evaluation needs a train split and a val or test "
                        "split: give clean.py --val-fold or --solution and pack again")
    return queries


def holds_queries(split: str) -> bool:
    return split == "val" or split.startswith("test")


def embed_all(model: RunModel, datasets: Sequence[Dataset], folder: Path | None, keep: bool = True
              ) -> dict[str, Embeddings]:
    """Embeddings of each split, read from and (with `keep`) written to a folder of stores if one is given."""
    return {dataset.split: embed_split(model, dataset, store(folder, dataset.split, model.variant) if folder else None,
                                       keep) for dataset in datasets}


def query_set(models: Sequence[RunModel], embedded: Sequence[dict[str, Embeddings]], photos: Dataset,
              matcher: "Matcher") -> QuerySet:
    """A split's queries to the gallery, with the non-landmarks of all query splits to compare with."""
    split, first = photos.split, embedded[0]
    vectors = tuple(Vectors(as_float32(known[split].vectors), known[GALLERY].vectors, non_landmarks(known)[0],
                            model.centers) for model, known in zip(models, embedded, strict=True))
    return QuerySet(vectors, first[GALLERY].labels, photos.truths(), first[split].keys, non_landmarks(first)[1],
                    matcher)


def non_landmarks(embedded: dict[str, Embeddings]) -> tuple[NDArray[np.float32], list[str]]:
    """Vectors (M, D) and keys of the queries that show no landmark."""
    known = [part for split, part in embedded.items() if split != GALLERY]
    return (as_float32(np.concatenate([part.vectors[part.labels < 0] for part in known])),
            [key for part in known for key, label in zip(part.keys, part.labels.tolist()) if label < 0])


def as_float32(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """The same numbers; no copy where they are that already."""
    return vectors.astype(np.float32, copy=False)


class Photos(Hashable, Protocol):
    """A dataset, or photos that are in none."""

    def read(self, i: int, /) -> bytes:
        """Photo i, a JPEG in normal form."""


class Matcher:
    """Counts the inliers of queries with gallery rows (`retrieval.state.CountInliers`); compares no pair twice.

    Args: queries, gallery: the photos; photo i is row i of the embeddings.
    """

    def __init__(self, queries: Photos, gallery: Photos):
        self.queries, self.gallery = queries, gallery
        self.known: dict[tuple[int, int], int] = {}
        self.features = lru_cache(KEPT)(_features)

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 (Q, K) of gallery rows (Q, K), in as many threads as there are cores: OpenCV releases the GIL."""
        work = [(q, unknown) for q, listed in enumerate(rows.tolist())
                if (unknown := [row for row in listed if (q, row) not in self.known])]
        threads = joblib.Parallel(joblib.cpu_count(), backend="threading", return_as="generator")
        found: Iterator[list[int]] = threads(joblib.delayed(self._inliers)(q, listed) for q, listed in work)
        shown = progress(found, total=len(work), unit="queries", what="compare photos")
        for counts, (q, listed) in zip(shown, work):
            self.known.update(((q, row), count) for row, count in zip(listed, counts))
        return np.array([[self.known[q, row] for row in listed] for q, listed in enumerate(rows.tolist())],
                        np.int64).reshape(rows.shape)

    def _inliers(self, q: int, rows: list[int]) -> list[int]:
        query = _features(self.queries, q)
        return [len(verify(query, self.features(self.gallery, row))) for row in rows]


def _features(photos: Photos, i: int) -> LocalFeatures:
    return extract(simplejpeg.decode_jpeg(photos.read(i), "RGB"))
