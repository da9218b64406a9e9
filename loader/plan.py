"""What one rank's batch holds, as a pure function of the position in the stream and of the dataset's index."""
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loader import augment
from loader.augment import Boxes, View, draw_boxes, draw_flips, draw_jitter, draw_qualities, whole_frames

# The side of the training images: one for the whole run, or one that grows by epoch.


@dataclass(frozen=True)
class GrowingSize:
    """From `first` to `last` pixels over so many `epochs`, linearly, in multiples of `step` (both ends excepted).

    Small images early save most of their compute (Tan and Le, "EfficientNetV2", ICML 2021, section 4; ffcv-imagenet
    trains so). Raises ValueError if first exceeds last, or either is not positive.
    """

    first: int
    last: int
    epochs: float
    step: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.last:
            raise ValueError(f"the first size must be positive and at most the last; got {self.first} and {self.last}")

    def at(self, epoch: float) -> int:
        """Side of a global batch that begins `epoch` epochs after the start, pixels; never falling."""
        if epoch >= self.epochs:
            return self.last
        exact = self.first + (self.last - self.first) * epoch / self.epochs
        return min(self.last, max(self.first, int(exact) // self.step * self.step))


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
    """What is decoded: x, y, width, height in pixels of the stored photo, (n, 4)."""
    matrices: NDArray[np.float32] | None
    """From points of the image to points of the box, in pixels, (n, 2, 3); None: images are their boxes, resized."""
    flips: NDArray[np.bool_]
    """Mirror left-right, (n,)."""
    qualities: NDArray[np.int32]
    """JPEG quality to compress the image with, 0 for none, (n,)."""
    jitter: NDArray[np.float32]
    """What colors.draw_jitter says, (n, 3) or (n, 8)."""
    replaced: int = 0
    """Samples that rotted on disk and gave way to others."""


def rank_positions(start: int, batch_size: int, rank: int) -> NDArray[np.int64]:
    """Positions that `rank` takes of the global batch that begins at `start`: the rank-th contiguous part."""
    return start + rank * batch_size + np.arange(batch_size, dtype=np.int64)


def training_plan(rows: NDArray[np.void], view: View, seed: int, positions: NDArray[np.int64],
                  ids: NDArray[np.int64], end: int, size: int, replaced: int) -> Plan:
    """Draw the views of samples `ids` at stream positions `positions`, both (n,); rows (n,) are theirs of the index."""
    boxes = draw_boxes(view, seed, positions, rows["width"], rows["height"])
    matrices = augment.draw_warps(view, seed, positions, boxes) if view.warps else None
    return Plan(end, size, ids, *_sampled(boxes, matrices, rows, size), draw_flips(view, seed, positions),
                draw_qualities(view, seed, positions), draw_jitter(view, seed, positions), replaced)


def evaluation_plan(rows: NDArray[np.void], view: View, ids: NDArray[np.int64], end: int, size: int) -> Plan:
    """Whole frames, nothing random."""
    boxes = whole_frames(view, rows["width"], rows["height"])
    matrices = augment.of_boxes(boxes) if view.warps else None
    return Plan(end, size, ids, *_sampled(boxes, matrices, rows, size), np.zeros(len(ids), bool),
                np.zeros(len(ids), np.int32), np.ones((len(ids), 3), np.float32))


def _sampled(boxes: Boxes, matrices: augment.Matrices | None, rows: NDArray[np.void], size: int
             ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
    """Boxes to decode, and matrices in pixels."""
    if matrices is None:
        return boxes.astype(np.int32), None
    decoded = augment.regions(matrices, rows["width"], rows["height"])
    return decoded, augment.in_pixels(matrices, decoded, size)
