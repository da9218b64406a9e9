"""What a split's photos are like, from its index and labels; no photo is read."""
from dataclasses import dataclass

import numpy as np

from shards.dataset import Dataset
from shards.format import INDEX_DTYPE, NO_LANDMARK, index_name
from shards.npy import open_rows


@dataclass(frozen=True)
class Statistics:
    """N: samples, C: classes of the whole dataset."""

    split: str
    shards: int
    sizes: np.ndarray
    """(N,) int32, bytes."""
    widths: np.ndarray
    """(N,) int32, pixels."""
    heights: np.ndarray
    """(N,) int32, pixels."""
    class_sizes: np.ndarray
    """(C,) int64, photos of each class in this split."""
    without_landmark: int
    """Samples that show none."""


def read_statistics(dataset: Dataset) -> Statistics:
    """Statistics of one split; holds 12 bytes a sample. Raises ValueError for an index that is none."""
    index = open_rows(dataset.path / index_name(dataset.split), INDEX_DTYPE)
    parts = [(rows["size"].copy(), rows["width"].copy(), rows["height"].copy()) for rows in index.chunks()]
    sizes, widths, heights = (np.concatenate(column) for column in zip(*parts))
    labels = dataset.labels
    return Statistics(dataset.split, dataset.manifest["splits"][dataset.split]["shards"], sizes, widths, heights,
                      np.bincount(labels[labels != NO_LANDMARK], minlength=dataset.num_classes),
                      int(np.count_nonzero(labels == NO_LANDMARK)))


def octaves(counts: np.ndarray) -> list[tuple[str, int]]:
    """How many counts are 1, 2–3, 4–7, 8–15, …: (label, number), from the lowest that occurs to the highest.

    Counts of a long tail fill such bins, of equal ratio, most evenly. Zeros are left out.
    """
    exponents = np.frexp(counts[counts > 0])[1] - 1
    bins = np.bincount(exponents) if len(exponents) else np.empty(0, int)
    first = int(np.argmax(bins > 0)) if len(bins) else 0
    return [(_octave(exponent), int(bins[exponent])) for exponent in range(first, len(bins))]


def _octave(exponent: int) -> str:
    low, high = 2**exponent, 2**(exponent + 1) - 1
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
