"""Say what a dataset is, from its manifest and indexes (no photo is read)."""
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shards.dataset import Dataset
from shards.format import NO_LANDMARK
from shards.manifest import read_manifest


def info(path: str | Path) -> str:
    """Splits, samples, classes, bytes, image and class sizes of the dataset in `path`, and how it was packed.

    Raises UserError for a folder that is no dataset.
    """
    manifest = read_manifest(path)
    sizes = [entry["size"] for entry in manifest["files"].values()]
    options = ", ".join(f"{name} {value}" for name, value in manifest["packing"].items())
    lines = [f"format version {manifest['format_version']}, {manifest['num_classes']:,} classes, "
             f"{len(sizes):,} files, {_megabytes(sizes)}", f"packed with {options}"]
    for split in manifest["splits"]:
        lines += _split_lines(Dataset(path, split))
    return "\n".join(lines)


def _split_lines(dataset: Dataset) -> list[str]:
    index, labels = dataset.index, dataset.labels
    counts = np.bincount(labels[labels != NO_LANDMARK], minlength=dataset.num_classes)
    return [f"{dataset.split}: {len(dataset):,} samples in {index['shard'].max() + 1:,} shards",
            f"  photos     {_megabytes(index['size'])}, bytes {_spread(index['size'])}",
            f"  width      {_spread(index['width'])} pixels",
            f"  height     {_spread(index['height'])} pixels",
            f"  classes    {np.count_nonzero(counts):,} occur, photos a class {_spread(counts[counts > 0])}",
            f"  landmark   {np.count_nonzero(labels == NO_LANDMARK):,} samples have none"]


def _spread(values: np.ndarray) -> str:
    if not len(values):
        return "-"
    return f"{values.min():,} / {np.median(values):,.0f} / {values.max():,} (least / median / most)"


def _megabytes(sizes: Iterable[int]) -> str:
    return f"{sum(map(int, sizes)) / 1e6:,.1f} MB"
