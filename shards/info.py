"""Say in text what a dataset is, from its manifest and indexes; no photo is read."""
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from arcshard.console import size_text
from shards.dataset import Dataset
from shards.folder import open_folder
from shards.statistics import Statistics, octaves, read_statistics

BAR = 40  # characters of the longest bar


def info(path: str | Path) -> str:
    """Splits, samples, classes, bytes, image and class sizes of the dataset at `path`, a URL too, and its packing.

    Raises UserError for what is no dataset.
    """
    manifest = open_folder(path).manifest
    sizes = [entry["size"] for entry in manifest["files"].values()]
    options = ", ".join(f"{name} {value}" for name, value in manifest["packing"].items())
    lines = [f"format version {manifest['format_version']}, {manifest['num_classes']:,} classes, "
             f"{len(sizes):,} files, {size_text(sum(sizes))}", f"packed with {options}"]
    for split in manifest["splits"]:
        lines += _split_lines(read_statistics(Dataset(path, split)))
    return "\n".join(lines)


def spread(values: np.ndarray) -> list[str]:
    """Least, median and most of some numbers; "-" where there are none."""
    if not len(values):
        return ["-"] * 3
    return [f"{value:,.0f}" for value in (values.min(), np.median(values), values.max())]


def _split_lines(found: Statistics) -> Iterator[str]:
    counts = found.class_sizes[found.class_sizes > 0]
    sizes, widths, heights, photos = (" / ".join(spread(values)) for values in (found.sizes, found.widths,
                                                                                found.heights, counts))
    yield f"{found.split}: {len(found.sizes):,} samples in {found.shards:,} shards"
    yield f"  photos     {size_text(found.sizes.sum(dtype=np.int64))}, bytes {sizes} (least / median / most)"
    yield f"  width      {widths} pixels"
    yield f"  height     {heights} pixels"
    yield f"  classes    {len(counts):,} occur, photos a class {photos}"
    yield f"  landmark   {found.without_landmark:,} samples have none"
    yield from _bars("photos a class", "classes", octaves(counts))


def _bars(what: str, of: str, bins: list[tuple[str, int]]) -> Iterator[str]:
    """A histogram in text, its longest bar BAR wide; a bin that is not empty shows."""
    if not bins:
        return
    most = max(number for _, number in bins)
    yield f"  {what:>16}  {of:>9}"
    for label, number in bins:
        yield f"  {label:>16}  {number:>9,}  {'█' * -(-BAR * number // most)}".rstrip()
