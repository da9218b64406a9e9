"""Exact nearest neighbours by inner product, chunked, with one order of ties everywhere."""
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GALLERY_CHUNK = 8192  # rows
MANY = 4  # times k better scores a row, beyond which topk is the faster way to find those that stay


def nearest(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int, *, query_chunk: int = 1024,
            gallery_chunk: int = GALLERY_CHUNK, device: str = "cpu") -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k gallery rows of greatest inner product with each query: higher score first, then smaller index.

    Args:
        queries: float32 or float16 (Q, D), rows of length 1 where scores shall be cosines. Products are float32.
        gallery: likewise (N, D); may be memory-mapped, and is read once.
        k: 1 to N.
        query_chunk, gallery_chunk: rows multiplied at a time. Memory beside inputs and result is about
            4 * D * (query_chunk + gallery_chunk) + 9 * query_chunk * gallery_chunk bytes (0.11 GB as given at
            D = 512), and up to 12 more per product of a chunk with many ties.
        device: torch device that multiplies; keep torch's float32 matmul precision at "highest" there.

    Returns scores float32 (Q, k) and indices int64 (Q, k). The order is exact for the products as computed:
    equal products rank alike whatever the chunks, but BLAS may round one differently in other chunks.
    Raises ValueError for shapes and dtypes that do not fit, for k outside 1 to N and for numbers that are not finite.
    """
    check_vectors(queries, gallery, k)
    best = torch.full((len(queries), k), -torch.inf)
    index = torch.zeros((len(queries), k), dtype=torch.int64)
    room = torch.empty(query_chunk * min(gallery_chunk, len(gallery)), device=device)  # made once: 4 % of the time
    for g in range(0, len(gallery), gallery_chunk):
        columns = _to_device(gallery[g:g + gallery_chunk], device).T
        if not columns.isfinite().all():
            raise ValueError("gallery must be finite, got NaN or infinity: a NaN score has no rank")
        for q in range(0, len(queries), query_chunk):
            rows = slice(q, q + query_chunk)
            asked = _to_device(queries[rows], device)
            scores = torch.mm(asked, columns, out=room[:len(asked) * columns.shape[1]].view(len(asked), -1))
            least = best[rows, -1:].to(device)
            better, found, at = (part.cpu() for part in _better(scores, least, k))
            _merge(best[rows], index[rows], better, found, at + g)
    return best.numpy(), index.numpy()


def _better(scores: Tensor, least: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows have scores that may enter their list, and those rows' scores and columns, (R, W).

    Only greater than the list's last enters: an equal score stands further behind in the gallery. Few do once a few
    chunks were seen, and finding them costs a tenth of `topk`. Columns ascend; places without score hold -inf.
    """
    better = scores > least
    if int(better.count_nonzero()) > MANY * k * len(scores):
        columns = _candidates(scores, k)
        return torch.arange(len(scores), device=scores.device), scores.gather(1, columns), columns
    row, column = better.nonzero(as_tuple=True)
    rows, place, counts = row.unique_consecutive(return_inverse=True, return_counts=True)
    width = int(counts.max()) if len(rows) else 0
    at = place, torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[place]
    found, columns = scores.new_full((len(rows), width), -torch.inf), row.new_zeros((len(rows), width))
    found[at], columns[at] = scores[row, column], column
    return rows, found, columns


def _candidates(scores: Tensor, k: int) -> Tensor:
    """Columns, ascending, of each row's first k by (score descending, column ascending): int64 (R, k)."""
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    columns = columns[:, :k]
    # topk picks any of the columns that tie for the last place: sort those rows, rare in real data, in full.
    tied = values[:, k - 1] == values[:, -1] if values.shape[1] > k else values.new_zeros(len(values), dtype=torch.bool)
    if tied.any():
        columns[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return columns.sort(dim=1).values


def _merge(best: Tensor, index: Tensor, rows: Tensor, scores: Tensor, columns: Tensor) -> None:
    """Put the better ones into the lists: `index` lies below `columns`, so a stable sort by score settles ties."""
    if not len(rows):
        return
    k = best.shape[1]
    scores, columns = torch.cat([best[rows], scores], dim=1), torch.cat([index[rows], columns], dim=1)
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    best[rows], index[rows] = scores.gather(1, order), columns.gather(1, order)


def _to_device(rows: NDArray[np.floating], device: str) -> Tensor:
    return torch.tensor(rows, device=device).float()  # a copy: torch cannot share a read-only memory map


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
