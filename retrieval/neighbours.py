"""Exact nearest neighbours by inner product, chunked, with one order of ties everywhere."""
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def nearest(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, *, query_chunk: int = 1024,
            gallery_chunk: int = 65536, device: str = "cpu") -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k gallery rows of greatest inner product with each query: higher score first, then smaller index.

    Args:
        queries: float32 (Q, D), rows of length 1 where scores shall be cosines.
        gallery: float32 (N, D), likewise; may be memory-mapped, and is read once.
        k: 1 to N.
        query_chunk, gallery_chunk: rows multiplied at a time. Memory beside inputs and result is about
            4 * D * (query_chunk + gallery_chunk) + 4 * query_chunk * gallery_chunk bytes (0.4 GB as given at
            D = 512), and up to 16 more per product of the queries whose k-th place is tied.
        device: torch device that multiplies; keep torch's float32 matmul precision at "highest" there.

    Returns scores float32 (Q, k) and indices int64 (Q, k). The order is exact for the products as computed:
    equal products rank alike whatever the chunks, but BLAS may round one differently in other chunks.
    Raises ValueError for shapes and dtypes that do not fit, and for k outside 1 to N.
    """
    _check(queries, gallery, k)
    best = torch.full((len(queries), k), -torch.inf)
    index = torch.zeros((len(queries), k), dtype=torch.int64)
    for g in range(0, len(gallery), gallery_chunk):
        columns = _to_device(gallery[g:g + gallery_chunk], device).T
        for q in range(0, len(queries), query_chunk):
            rows = slice(q, q + query_chunk)
            scores = _to_device(queries[rows], device) @ columns
            chosen = _candidates(scores, k)
            found = scores.gather(1, chosen).cpu(), chosen.cpu() + g
            best[rows], index[rows] = _merge(best[rows], index[rows], *found)
    return best.numpy(), index.numpy()


def _candidates(scores: Tensor, k: int) -> Tensor:
    """Columns, ascending, of each row's first k by (score descending, column ascending): int64 (Q, <= k)."""
    if scores.shape[1] <= k:
        return torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
    values, columns = scores.topk(k + 1, dim=1)
    columns = columns[:, :k]
    # topk picks any of the columns that tie for the last place: sort those rows, rare in real data, in full.
    tied = values[:, k - 1] == values[:, k]
    if tied.any():
        columns[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return columns.sort(dim=1).values


def _merge(best: Tensor, index: Tensor, scores: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The first k of both lists: `index` lies below `columns`, so a stable sort by score settles ties."""
    scores, columns = torch.cat([best, scores], dim=1), torch.cat([index, columns], dim=1)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :best.shape[1]]
    return scores.gather(1, order), columns.gather(1, order)


def _to_device(rows: NDArray[np.float32], device: str) -> Tensor:
    return torch.tensor(rows, device=device)  # a copy: torch cannot share a read-only memory map


def _check(queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int) -> None:
    for name, rows in (("queries", queries), ("gallery", gallery)):
        if rows.ndim != 2 or rows.dtype != np.float32:
            raise ValueError(f"{name} must be a float32 matrix, got {rows.dtype} of shape {rows.shape}")
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError("queries and gallery must come from one model, got embeddings of "
                         f"{queries.shape[1]} and {gallery.shape[1]} dimensions")
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must be 1 to the gallery's {len(gallery)} rows, got {k}")
