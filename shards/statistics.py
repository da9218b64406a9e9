"""What a split's photos are like, from its index and labels; no photo is read."""
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from arcshard.console import UserError
from shards.dataset import Dataset
from shards.format import INDEX_DTYPE, NO_LANDMARK, index_name, labels_name
from shards.npy import RowFile, open_rows


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
    """Statistics of one split; holds 16 bytes a sample. Raises UserError if index or labels are damaged."""
    index, labels = _rows(dataset, index_name, INDEX_DTYPE), _rows(dataset, labels_name, np.dtype("<i4"))
    parts = [(rows["size"].copy(), rows["width"].copy(), rows["height"].copy()) for rows in index.chunks()]
    sizes, widths, heights = (np.concatenate(column) for column in zip(*parts))
    classes = labels.read(0, labels.rows)
    return Statistics(dataset.split, dataset.manifest["splits"][dataset.split]["shards"], sizes, widths, heights,
                      np.bincount(classes[classes >= 0], minlength=dataset.num_classes),
                      int(np.count_nonzero(classes == NO_LANDMARK)))


def _rows(dataset: Dataset, name: Callable[[str], str], dtype: np.dtype) -> RowFile:
    path = dataset.file(name(dataset.split))
    try:
        rows = open_rows(path, dtype)
    except ValueError as error:
        raise UserError(f"{path} {error}: rebuild it with python -m shards repair") from None
    if rows.rows != len(dataset):
        raise UserError(f"{path} has {rows.rows} rows, but dataset.json counts {len(dataset)} samples: rebuild it with "
                        "python -m shards repair")
    return rows


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
