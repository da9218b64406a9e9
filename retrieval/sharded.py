"""Exact search in a gallery that is spread over ranks: each searches its part, one merges the lists."""
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from arcshard.distributed import World
from retrieval.neighbours import GALLERY_CHUNK, Lists, check_vectors, nearest


def part_of(rows: int, rank: int, size: int, chunk: int = GALLERY_CHUNK) -> range:
    """The rank-th of `size` contiguous parts of the gallery; parts begin where one process would begin a chunk, so that
    every product is computed in the same shape and, with as many threads, rounds alike."""
    chunks = -(-rows // chunk)
    first, last = (min(chunks * r // size * chunk, rows) for r in (rank, rank + 1))
    return range(first, last)


def nearest_in_part(queries: NDArray[np.floating], gallery: NDArray[np.floating], k: int, part: range,
                    device: str = "cpu") -> Lists:
    """`nearest` in some rows of the gallery, as rows of the whole: (Q, k); scores -inf where the part has fewer."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.zeros((len(queries), k), np.int64)
    if part and len(queries):
        here = min(k, len(part))
        found = nearest(queries, gallery[part.start:part.stop], here, device=device)
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
    own = nearest_in_part(queries, gallery, k, part_of(len(gallery), world.rank, world.size), str(world.device))
    if world.size == 1:
        return own
    scores, rows = (_gathered(torch.from_numpy(side), world) for side in own)
    return merge_lists([*zip(scores, rows)]) if world.is_main else own


def _gathered(own: torch.Tensor, world: World) -> list[np.ndarray]:
    """Every rank's tensor on rank 0; nothing elsewhere."""
    room = [torch.empty_like(own) for _ in range(world.size)] if world.is_main else None
    dist.gather(own, room)
    return [tensor.numpy() for tensor in room or []]
