"""Describe a dataset in text, from its manifest and indexes; no photo is read."""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcshard.console import printable, size_text
from shards.dataset import Dataset
from shards.folder import open_folder
from shards.format import NO_LANDMARK

BAR = 40  # characters of the longest bar


@dataclass(frozen=True)
class Statistics:
    """What the photos of a split are like. N: samples, C: classes of the whole dataset."""

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
    """Statistics of one split; 12 bytes a sample beside the maps. Raises UserError if index or labels are damaged."""
    sizes, widths, heights = (np.array(dataset.index[field]) for field in ("size", "width", "height"))
    classes = dataset.labels
    return Statistics(dataset.split, dataset.num_shards, sizes, widths, heights,
                      np.bincount(classes[classes >= 0], minlength=len(dataset.landmark_ids)),
                      int(np.count_nonzero(classes == NO_LANDMARK)))


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


def info(path: str | Path) -> str:
    """Splits, samples, classes, bytes, image and class sizes of the dataset at `path`, a URL too, and its packing.

    Raises UserError for what is no dataset.
    """
    manifest = open_folder(path).manifest
    sizes = [entry["size"] for entry in manifest["files"].values()]
    options = ", ".join(f"{name} {value}" for name, value in manifest["packing"].items())
    lines = [f"format version {manifest['format_version']}, {manifest['num_classes']:,} classes, "
             f"{len(sizes):,} files, {size_text(sum(sizes))}", printable(f"packed with {options}")]
    for split in manifest["splits"]:
        lines += _split_lines(read_statistics(Dataset(path, split)))
    return "\n".join(lines)


def spread(values: np.ndarray) -> list[str]:
    """Least, median and most of some numbers; "-" where there are none."""
    if not len(values):
        return ["-"] * 3
    return [f"{value:,.0f}" for value in (values.min(), np.median(values), values.max())]


def _split_lines(split: Statistics) -> Iterator[str]:
    counts = split.class_sizes[split.class_sizes > 0]
    sizes, widths, heights, photos = (" / ".join(spread(values))
                                      for values in (split.sizes, split.widths, split.heights, counts))
    yield f"{split.split}: {len(split.sizes):,} samples in {split.shards:,} shards"
    yield f"  photos     {size_text(split.sizes.sum(dtype=np.int64))}, bytes {sizes} (least / median / most)"
    yield f"  width      {widths} pixels"
    yield f"  height     {heights} pixels"
    yield f"  classes    {len(counts):,} occur, photos a class {photos}"
    yield f"  landmark   {split.without_landmark:,} samples have none"
    yield from _bars("photos a class", "classes", octaves(counts))


def _bars(what: str, of: str, bins: list[tuple[str, int]]) -> Iterator[str]:
    """A histogram in text, its longest bar BAR wide; a bin that is not empty shows."""
    if not bins:
        return
    most = max(number for _, number in bins)
    yield f"  {what:>16}  {of:>9}"
    for label, number in bins:
        yield f"  {label:>16}  {number:>9,}  {'█' * -(-BAR * number // most)}".rstrip()
