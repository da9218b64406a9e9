"""Exact nearest neighbours by inner product, chunked, with one order of ties everywhere."""
import faiss
import numpy as np
import torch
from numpy.typing import NDArray

Lists = tuple[NDArray[np.float32], NDArray[np.int64]]
GALLERY_CHUNK = 16384  # rows; FAISS begins each chunk with empty lists, which costs 3 % at 8,192 and nothing here


def nearest(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int, *, query_chunk: int = 4096,
            gallery_chunk: int = GALLERY_CHUNK, device: str = "cpu") -> Lists:
    """The k gallery rows of greatest inner product with each query: higher score first, then smaller index.

    Args:
        queries: float32 or float16 (Q, D), rows of length 1 where scores shall be cosines. Products are float32.
        gallery: likewise (N, D); may be memory-mapped, and is read once.
        k: 1 to N.
        query_chunk, gallery_chunk: rows multiplied at a time. Memory beside inputs and result is about
            4 * D * (query_chunk + gallery_chunk) bytes (0.04 GB as given at D = 512), 4 * query_chunk * gallery_chunk
            more on a torch device (0.27 GB), and up to 24 per product of a chunk with many ties.
        device: "cpu", where FAISS multiplies, or a torch device; keep torch's float32 matmul precision at "highest".

    Returns scores float32 (Q, k) and indices int64 (Q, k). The order is exact for the products as computed:
    equal products rank alike whatever the chunks, but BLAS may round one differently in other chunks, with another
    number of threads, or on another device.
    Raises ValueError for shapes and dtypes that do not fit, for k outside 1 to N, for numbers that are not finite, and
    for products beyond float32.
    """
    check_vectors(queries, gallery, k)
    best, index = np.full((len(queries), k), -np.inf, np.float32), np.zeros((len(queries), k), np.int64)
    for g in range(0, len(gallery), gallery_chunk):
        part = np.ascontiguousarray(gallery[g:g + gallery_chunk], np.float32)
        if not np.isfinite(part).all():
            raise ValueError("gallery must be finite, got NaN or infinity: a NaN score has no rank")
        for q in range(0, len(queries), query_chunk):
            rows = slice(q, q + query_chunk)
            asked, here = np.ascontiguousarray(queries[rows], np.float32), min(k, len(part))
            if device == "cpu":
                found, at = first_by_faiss(asked, part, here, best[rows, -1])
            else:
                found, at = first_by_torch(asked, part, here, device)
            if not np.isfinite(found).all() or (at < 0).any():  # FAISS lists neither NaN nor -inf
                raise ValueError("products of queries and gallery must be finite in float32: scale rows to length 1")
            _merge(best[rows], index[rows], found, at + g)
    return best, index


def first_by_faiss(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int,
                   least: NDArray[np.float32]) -> Lists:
    """Each query's first k rows, (Q, k): by score, equals by row; by row at the last place only above `least` (Q,).

    FAISS keeps any of the rows that tie for the last place it is asked for. So it is asked for one more than k, and
    for twice as many until that one is less than the k-th; its products do not depend on how many are asked for.
    """
    wide = min(k + 1, len(gallery))
    while True:
        scores, rows = faiss.knn(queries, gallery, wide, faiss.METRIC_INNER_PRODUCT)
        tied = (scores[:, k - 1] == scores[:, -1]) & (scores[:, k - 1] > least)
        if wide == len(gallery) or not tied.any():
            break
        wide = min(2 * wide, len(gallery))
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def first_by_torch(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, device: str) -> Lists:
    """As `first_by_faiss`, on a torch device and with all ties settled."""
    scores = torch.mm(torch.tensor(queries, device=device), torch.tensor(gallery, device=device).T)
    values, rows = scores.topk(min(k + 1, len(gallery)), dim=1)
    # topk picks any of the rows that tie for the last place: sort those queries, rare in real data, in full.
    tied = (values[:, k - 1] == values[:, -1]) & (values.shape[1] > k)
    rows[tied, :k] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    rows = rows[:, :k].sort(dim=1).values
    values, order = scores.gather(1, rows).sort(dim=1, descending=True, stable=True)
    return values.cpu().numpy(), rows.gather(1, order).cpu().numpy()


def _merge(best: NDArray[np.float32], index: NDArray[np.int64], scores: NDArray[np.float32],
           rows: NDArray[np.int64]) -> None:
    """Put later rows into the lists: `index` lies below `rows`, so a stable sort by score settles ties."""
    better = np.flatnonzero(scores[:, 0] > best[:, -1])  # an equal score stands further behind in the gallery
    joined, at = np.hstack([best[better], scores[better]]), np.hstack([index[better], rows[better]])
    order = np.argsort(-joined, axis=1, kind="stable")[:, :best.shape[1]]
    best[better], index[better] = np.take_along_axis(joined, order, 1), np.take_along_axis(at, order, 1)


def check_vectors(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int) -> None:
    """Raises ValueError for what cannot be searched; see `nearest`."""
    for name, rows in (("queries", queries), ("gallery", gallery)):
        if rows.ndim != 2 or rows.dtype not in ("float32", "float16"):
            raise ValueError(f"{name} must be a float32 or float16 matrix, got {rows.dtype} of shape {rows.shape}")
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError("queries and gallery must come from one model, got embeddings of "
                         f"{queries.shape[1]} and {gallery.shape[1]} dimensions")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must be 1 to the gallery's {len(gallery)} rows, got {k}")
    if not np.isfinite(queries).all():
        raise ValueError("queries must be finite, got NaN or infinity: a NaN score has no rank")
