"""What one rank's batch holds: a pure function of its positions in the stream and of the dataset's index."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loader.augment import (
    Boxes,
    Matrices,
    View,
    box_matrices,
    central_boxes,
    decoded_boxes,
    draw_boxes,
    draw_flips,
    draw_jitter,
    draw_qualities,
    draw_warps,
    pixel_matrices,
)


@dataclass
class Plan:
    """One rank's part of a global batch; every array has one row for each sample."""

    end: int
    """Position of the stream after this global batch."""
    size: int
    """Side of the images, pixels."""
    ids: NDArray[np.int64]
    """Rows of the dataset's index, (n,)."""
    boxes: NDArray[np.int32]
    """What is decoded: x, y, width, height in pixels of the stored photo, (n, 4)."""
    matrices: NDArray[np.float32] | None
    """From points of the image to points of the box, in pixels, (n, 2, 3); None: images are their boxes, resized."""
    flips: NDArray[np.bool_]
    """Mirror left-right, (n,)."""
    qualities: NDArray[np.int32]
    """JPEG quality to compress each image with, (n,); 0: do not."""
    jitter: NDArray[np.float32]
    """What the training step does to the colors: loader/augment.py, draw_jitter; (n, 3) or (n, 8)."""
    replaced: int = 0
    """Samples that are corrupt on disk and were replaced by others."""


def rank_positions(start: int, batch_size: int, rank: int) -> NDArray[np.int64]:
    """Positions that `rank` takes of the global batch that begins at `start`: the rank-th contiguous part."""
    return start + rank * batch_size + np.arange(batch_size, dtype=np.int64)


def training_plan(rows: NDArray[np.void], view: View, seed: int, positions: NDArray[np.int64],
                  ids: NDArray[np.int64], end: int, size: int, replaced: int) -> Plan:
    """Draw the views of samples `ids` at `positions` of the stream, both (n,); rows: their rows of the index, (n,)."""
    boxes = draw_boxes(view, seed, positions, rows["width"], rows["height"])
    matrices = draw_warps(view, seed, positions, boxes) if view.warps else None
    return Plan(end, size, ids, *_decoded(boxes, matrices, rows, size), draw_flips(view, seed, positions),
                draw_qualities(view, seed, positions), draw_jitter(view, seed, positions), replaced)


def evaluation_plan(rows: NDArray[np.void], view: View, ids: NDArray[np.int64], end: int, size: int) -> Plan:
    """The centers of the frames of samples `ids` (n,), nothing random; rows: their rows of the index, (n,)."""
    boxes = central_boxes(view, rows["width"], rows["height"])
    matrices = box_matrices(boxes) if view.warps else None
    return Plan(end, size, ids, *_decoded(boxes, matrices, rows, size), np.zeros(len(ids), bool),
                np.zeros(len(ids), np.int32), np.ones((len(ids), 3), np.float32))


def _decoded(boxes: Boxes, matrices: Matrices | None, rows: NDArray[np.void], size: int
             ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Boxes to decode, and the matrices in pixels of those boxes."""
    if matrices is None:
        return boxes.astype(np.int32), None
    decoded = decoded_boxes(matrices, rows["width"], rows["height"])
    return decoded, pixel_matrices(matrices, decoded, size)


@dataclass(frozen=True)
class GrowingSize:
    """The side of training images grows from `first` to `last` pixels over `epochs`, linearly.

    Between the ends it is a multiple of `step`. Small images early save most of their compute (Tan and Le,
    "EfficientNetV2", ICML 2021, section 4; ffcv-imagenet does it too). Raises ValueError if first exceeds last, or
    either is not positive.
    """

    first: int
    last: int
    epochs: float
    step: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last:
            raise ValueError(f"the first size is {self.first} and the last {self.last}: give positive, rising ones")

    def at(self, epoch: float) -> int:
        """Side in pixels of a global batch that begins `epoch` epochs after the start; never falls."""
        if epoch >= self.epochs:
            return self.last
        exact = self.first + (self.last - self.first) * epoch / self.epochs
        return min(self.last, max(self.first, int(exact) // self.step * self.step))
