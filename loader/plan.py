"""What one rank's batch holds, as a pure function of the position in the stream and of the dataset's index."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loader import views


@dataclass
class Plan:
    """One rank's part of a global batch; every array has one row a sample."""

    end: int
    """Position of the stream after this global batch."""
    size: int
    """Side of the images, pixels."""
    ids: NDArray[np.int64]
    """Rows of the dataset's index, (n,)."""
    boxes: NDArray[np.int32]
    """Crop x, y, width, height in pixels of the stored photo, (n, 4)."""
    flips: NDArray[np.bool_]
    """Mirror left-right, (n,)."""
    jitter: NDArray[np.float32]
    """Factors of brightness, contrast and saturation, (n, 3)."""
    replaced: int = 0
    """Samples that rotted on disk and gave way to others."""


def rank_positions(start: int, batch_size: int, rank: int) -> NDArray[np.int64]:
    """Positions that `rank` takes of the global batch that begins at `start`: the rank-th contiguous part."""
    return start + rank * batch_size + np.arange(batch_size, dtype=np.int64)


def training_plan(index: NDArray[np.void], view: views.View, seed: int, positions: NDArray[np.int64],
                  ids: NDArray[np.int64], end: int, size: int, replaced: int) -> Plan:
    """Draw the views of samples `ids` at stream positions `positions`, both (n,)."""
    rows = index[ids]
    return Plan(end, size, ids, views.draw_crops(view, seed, positions, rows["width"], rows["height"]),
                views.draw_flips(view, seed, positions), views.draw_jitter(view, seed, positions), replaced)


def evaluation_plan(index: NDArray[np.void], ids: NDArray[np.int64], end: int, size: int) -> Plan:
    """Whole photos, nothing random."""
    rows = index[ids]
    return Plan(end, size, ids, views.whole_photos(rows["width"], rows["height"]), np.zeros(len(ids), bool),
                np.ones((len(ids), 3), np.float32))
