"""Which splits ask which, and a run's embeddings of them as questions to its gallery."""
import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from retrieval import Embeddings, QuerySet, Vectors
from retrieval.run.model import RunModel
from retrieval.state import CountInliers
from shards import CacheConfig, splits

GALLERY = "train"


def query_splits(data: str, cache: CacheConfig) -> list[str]:
    """The dataset's val and test splits. Raises UserError if it has none, or no gallery."""
    known = splits(data, cache)
    queries = [split for split in known if split == "val" or split.startswith("test")]
    if not queries or GALLERY not in known:
        raise UserError(f"an evaluation needs a train split and a val or test split; {data} has "
                        f"{', '.join(known)}: give clean.py --val-fold or --solution and pack again")
    return queries


def questions(models: list[RunModel], embedded: list[dict[str, Embeddings]], split: str,
              truths: list[set[int]], inliers: CountInliers | None = None) -> QuerySet:
    """A split's queries to the gallery, with the photos without landmark of all splits to compare with."""
    first = embedded[0]
    return QuerySet(tuple(Vectors(as_float32(known[split].vectors), known[GALLERY].vectors, non_landmarks(known)[0],
                                   model.centers)
                           for model, known in zip(models, embedded, strict=True)),
                     first[GALLERY].labels, truths, first[split].keys, non_landmarks(first)[1], inliers)


def non_landmarks(embedded: dict[str, Embeddings]) -> tuple[np.ndarray, list[str]]:
    """Vectors and keys of the photos without landmark among the queries."""
    known = [part for split, part in embedded.items() if split != GALLERY]
    return (as_float32(np.concatenate([part.vectors[part.labels < 0] for part in known])),
            [key for part in known for key, label in zip(part.keys, part.labels.tolist()) if label < 0])


def as_float32(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """The same numbers; no copy where they are that already."""
    return vectors.astype(np.float32, copy=False)
