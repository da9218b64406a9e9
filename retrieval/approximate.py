"""Nearest neighbours that are mostly the nearest: FAISS's indexes behind the call of `nearest`."""
import math
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.neighbours import check_vectors

LINKS = 32  # of a photo in HNSW; FAISS's own example, and more cost memory: 8 bytes each
PER_LIST = 64  # photos of a training sample per list of IVF; FAISS asks for 39 to 256


def approximate(queries: NDArray[np.float32], gallery: NDArray[np.floating], k: int, method: Literal["ivf", "hnsw"],
                effort: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """As `retrieval.nearest`, but from an index that is built here, holds the gallery in memory and may miss some.

    Args:
        method: ivf: 4 √N lists by k-means, `effort` of them searched (Jégou et al. 2011); hnsw: a graph of 32 links,
            `effort` candidates kept (Malkov and Yashunin 2016, arXiv 1603.09320), slow to build.

    Of what is found, scores are exact and equal ones rank by index; at places without finding, score -inf and row 0.
    Raises ValueError as `nearest` does.
    """
    check_vectors(queries, gallery, k)
    index = _built(np.ascontiguousarray(gallery, np.float32), method, effort)
    scores, rows = index.search(np.ascontiguousarray(queries), k)
    scores, rows = np.where(rows < 0, -np.inf, scores).astype(np.float32), np.maximum(rows, 0)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _built(gallery: NDArray[np.float32], method: str, effort: int) -> Any:
    dim, rows = gallery.shape[1], len(gallery)
    if method == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efSearch = effort
        graph.add(gallery)
        return graph
    num_lists = max(1, min(rows // 39, round(4 * math.sqrt(rows))))
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, num_lists, faiss.METRIC_INNER_PRODUCT)
    lists.train(gallery[np.sort(np.random.default_rng(0).permutation(rows)[:PER_LIST * num_lists])])
    lists.nprobe = effort
    lists.add(gallery)
    return lists
