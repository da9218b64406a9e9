"""Nearest neighbors by inner product: exact in chunks, by an approximate index, or over ranks; ties rank alike."""
import math
from itertools import pairwise
from typing import Any, Literal

import faiss
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from arcshard.console import progress
from arcshard.distributed import World

Lists = tuple[NDArray[np.float32], NDArray[np.int64]]
GALLERY_CHUNK = 16384  # rows, and on the CPU a multiple of them: FAISS begins each chunk with empty lists
GALLERY_BYTES = 2**29  # of a chunk as float32 on the CPU
# FAISS multiplies 4,096 queries by 1,024 rows at a time, which takes 16 MB; a quarter of it stays in a core's cache: 5
# to 20 % faster. With fewer than 128,000 / D queries it leaves BLAS aside, and takes five times as long (1.15.1).
QUERY_CHUNK, BLAS_FROM = 1024, 128_000
LINKS = 32  # of a photo in HNSW; FAISS's own example, and more cost memory: 8 bytes each
PER_LIST = 64  # photos of a training sample per list of IVF; FAISS asks for 39 to 256


def nearest(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int, *, query_chunk: int | None = None,
            gallery_chunk: int | None = None, device: str = "cpu", show: bool = True) -> Lists:
    """The k gallery rows of greatest inner product with each query: higher score first, then smaller index.

    Args:
        queries: float32 or float16 (Q, D), rows of length 1 where scores shall be cosines. Products are float32.
        gallery: likewise (N, D); may be memory-mapped, and is read once.
        k: 1 to N.
        query_chunk, gallery_chunk: rows multiplied at a time; None: what is fast. Memory beside inputs and result is
            then at most 0.7 GB on the CPU, and on a torch device 0.3 GB there; more for products with many ties, up to
            24 bytes for each product of a chunk.
        device: "cpu", where FAISS multiplies, or a torch device; keep torch's float32 matmul precision at "highest".
        show: a bar with rate and time left, should it take more than two seconds.

    Returns scores float32 (Q, k) and indices int64 (Q, k). The order is exact for the products as computed:
    equal products rank alike whatever the chunks, but BLAS may round one differently in other chunks, with another
    number of threads, or on another device.
    Raises ValueError for shapes and dtypes that do not fit, for k outside 1 to N, for numbers that are not finite, and
    for products beyond float32.
    """
    check_vectors(queries, gallery, k)
    dim = queries.shape[1]
    gallery_chunk = gallery_chunk or (rows_of_chunk(dim) if device == "cpu" else GALLERY_CHUNK)
    query_parts = equal_parts(len(queries), query_chunk or max(QUERY_CHUNK, -(-BLAS_FROM // max(1, dim))))
    best, index = np.full((len(queries), k), -np.inf, np.float32), np.zeros((len(queries), k), np.int64)
    with progress(total=len(queries) * len(gallery), unit="pairs", what="search", unit_scale=True,
                  disable=not show) as bar:
        for g in range(0, len(gallery), gallery_chunk):
            part = np.ascontiguousarray(gallery[g:g + gallery_chunk], np.float32)
            if not np.isfinite(np.vdot(part, part)) and not np.isfinite(part).all():  # the first takes half the time
                raise ValueError("gallery holds NaN or infinity, whose scores have no rank")
            for rows in query_parts:
                asked, here = np.ascontiguousarray(queries[rows], np.float32), min(k, len(part))
                if device == "cpu":
                    found, at = first_by_faiss(asked, part, here, best[rows, -1])
                else:
                    found, at = first_by_torch(asked, part, here, device)
                if not np.isfinite(found).all() or (at < 0).any():  # FAISS lists neither NaN nor -inf
                    raise ValueError("products of queries and gallery exceed float32: scale the rows to length 1")
                _merge(best[rows], index[rows], found, at + g)
                bar.update(len(asked) * len(part))
    return best, index


def rows_of_chunk(dim: int) -> int:
    """Rows of the gallery that FAISS gets at a time."""
    return max(1, GALLERY_BYTES // (4 * max(1, dim) * GALLERY_CHUNK)) * GALLERY_CHUNK


def equal_parts(rows: int, least: int) -> list[slice]:
    """The rows in parts that differ by one at most, of `least` or more where there are as many."""
    bounds = np.linspace(0, rows, max(1, rows // least) + 1).astype(int).tolist() if rows else [0]
    return [slice(*pair) for pair in pairwise(bounds)]


def first_by_faiss(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int,
                   least: NDArray[np.float32]) -> Lists:
    """Each query's first k rows, (Q, k): by score, equal scores by row; at the last place only above `least` (Q,).

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
    several = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(1))  # FAISS sorts by score alone
    order = np.lexsort((rows[several], -scores[several]), axis=1)
    rows[several] = np.take_along_axis(rows[several], order, 1)
    return scores[:, :k], rows[:, :k]


def first_by_torch(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, device: str) -> Lists:
    """As `first_by_faiss`, on a torch device, and with every tie ranked by row."""
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
    if scores.shape == best.shape and np.isneginf(best).all():
        best[:], index[:] = scores, rows
        return
    better = np.flatnonzero(scores[:, 0] > best[:, -1])  # an equal score stands further behind in the gallery
    joined, at = np.hstack([best[better], scores[better]]), np.hstack([index[better], rows[better]])
    order = np.argsort(-joined, axis=1, kind="stable")[:, :best.shape[1]]
    best[better], index[better] = np.take_along_axis(joined, order, 1), np.take_along_axis(at, order, 1)


def check_vectors(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int) -> None:
    """Raises ValueError for what cannot be searched; see `nearest`."""
    for name, rows in (("queries", queries), ("gallery", gallery)):
        if rows.ndim != 2 or rows.dtype not in ("float32", "float16"):
            raise ValueError(f"{name} is {rows.dtype} of shape {rows.shape}: give a float32 or float16 matrix")
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions and the gallery {gallery.shape[1]}: give "
                         "embeddings of one model")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k is {k}: give 1 to {len(gallery)}, the gallery's rows")
    if not np.isfinite(queries).all():
        raise ValueError("queries hold NaN or infinity, whose scores have no rank")


# Approximate search: FAISS's indexes behind the call of `nearest`.

def approximate(queries: NDArray[np.float32], gallery: NDArray[np.floating], k: int, method: Literal["ivf", "hnsw"],
                effort: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`nearest` by an index that is built here, holds the gallery in memory and may miss some neighbors.

    Args:
        method: ivf: 4 √N lists by k-means, `effort` of them searched (Jégou et al. 2011); hnsw: a graph of 32 links,
            `effort` candidates kept (Malkov and Yashunin 2016, arXiv 1603.09320), slow to build.

    Scores are exact, and equal ones rank by row. Places for which nothing was found have score -inf and row 0.
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


# Exact search over ranks: each searches its part of the gallery, rank 0 merges the lists.

def part_of(rows: int, rank: int, size: int, chunk: int = GALLERY_CHUNK) -> range:
    """The rank-th of `size` contiguous parts of the gallery; parts begin where one process would begin a chunk, so that
    every product is computed in the same shape and, with as many threads, rounds alike."""
    chunks = -(-rows // chunk)
    first, last = (min(chunks * r // size * chunk, rows) for r in (rank, rank + 1))
    return range(first, last)


def nearest_in_part(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int, part: range,
                    device: str = "cpu", show: bool = True) -> Lists:
    """`nearest` in some rows of the gallery, as rows of the whole: (Q, k); scores -inf where the part has fewer."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.zeros((len(queries), k), np.int64)
    if part and len(queries):
        here = min(k, len(part))
        found = nearest(queries, gallery[part.start:part.stop], here, device=device, show=show)
        scores[:, :here], rows[:, :here] = found[0], found[1] + part.start
    return scores, rows


def merge_lists(parts: list[Lists]) -> Lists:
    """The first k of all parts' lists (Q, k), the parts in the order of their rows: by score, equals by row."""
    k = parts[0][0].shape[1]
    scores, rows = (np.concatenate(side, axis=1) for side in zip(*parts))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def nearest_over_ranks(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int, world: World) -> Lists:
    """`nearest` with the gallery spread over the ranks; all must call, and rank 0 gets the lists (others: their own).

    Memory of rank 0 grows with 12 bytes × Q × k × ranks. Raises ValueError as `nearest` does.
    """
    check_vectors(queries, gallery, k)
    own = nearest_in_part(queries, gallery, k, part_of(len(gallery), world.rank, world.size), str(world.device),
                          world.is_main)
    if world.size == 1:
        return own
    scores, rows = (_gathered(torch.from_numpy(side), world) for side in own)
    return merge_lists([*zip(scores, rows)]) if world.is_main else own


def _gathered(own: torch.Tensor, world: World) -> list[np.ndarray]:
    """Every rank's tensor on rank 0; nothing elsewhere."""
    room = [torch.empty_like(own) for _ in range(world.size)] if world.is_main else None
    dist.gather(own, room)
    return [tensor.numpy() for tensor in room or []]
