"""The page of a dataset: class sizes, image sizes, bytes, a contact sheet."""
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcshard.console import size_text
from arcshard.names import title
from pages import charts
from pages.templates import fill, thumbnail
from shards.dataset import Dataset
from shards.folder import open_folder
from shards.format import NO_LANDMARK, key_text
from shards.info import Statistics, octaves, read_statistics, spread

SHEET = 48  # photos
THUMBNAIL = 200  # pixels; twice what the page shows, as sharp screens want


@dataclass(frozen=True)
class SheetPhoto:
    """A photo of the contact sheet."""

    uri: str
    key: str
    landmark: str
    """Its name, else its id; "" for none."""


@dataclass(frozen=True)
class SplitSection:
    """What the page shows of a split."""

    split: str
    summary: str
    spreads: list[list[str]]
    """What, its least, median and most."""
    charts: list[tuple[str, str]]
    """Caption and data URI."""
    photos: list[SheetPhoto]


def render(path: str | Path) -> str:
    """The page of the dataset at `path`, a folder or URL, as HTML; the same dataset gives the same bytes.

    Raises UserError for what is no dataset and for a photo that is damaged.
    """
    manifest = open_folder(path).manifest
    sections = [_section(Dataset(path, split)) for split in manifest["splits"]]
    tiles = [("photos", f"{sum(counts['samples'] for counts in manifest['splits'].values()):,}"),
             ("classes", f"{manifest['num_classes']:,}"),
             ("shards", f"{sum(counts['shards'] for counts in manifest['splits'].values()):,}"),
             ("on disk", size_text(sum(entry["size"] for entry in manifest["files"].values())))]
    return fill("info", name=Path(path).resolve().name, tiles=tiles, sections=sections,
                packing=manifest["packing"], version=manifest["format_version"])


def _section(dataset: Dataset) -> SplitSection:
    found = read_statistics(dataset)
    counts = found.class_sizes[found.class_sizes > 0]
    summary = (f"{len(found.sizes):,} photos in {found.shards:,} {'shard' if found.shards == 1 else 'shards'}, "
               f"{size_text(found.sizes.sum(dtype=np.int64))}; "
               f"{len(counts):,} of {dataset.num_classes:,} classes occur; "
               f"{found.without_landmark:,} photos show no landmark.")
    columns = {"photos a class": counts, "width, pixels": found.widths, "height, pixels": found.heights,
               "bytes a photo": found.sizes}
    spreads = [[what, *spread(values)] for what, values in columns.items()]
    return SplitSection(dataset.split, summary, spreads, _charts(found), [*_sheet(dataset)])


def _charts(found: Statistics) -> list[tuple[str, str]]:
    bins = octaves(found.class_sizes)
    class_sizes = [("Class sizes", charts.bar_chart(bins, "photos a class", "classes"))] if bins else []
    return [*class_sizes, ("Image sizes", charts.size_map(found.widths, found.heights)),
            ("Shapes", charts.histogram(found.widths / found.heights, "width / height")),
            ("Bytes a photo", charts.histogram(found.sizes, "bytes"))]


def _sheet(dataset: Dataset) -> Iterator[SheetPhoto]:
    """Photos evenly drawn over the split, which packing has shuffled."""
    for i in np.unique(np.linspace(0, len(dataset) - 1, SHEET).astype(int)).tolist():
        label = int(dataset.labels[i])
        known = dataset.landmark_ids[label] if label != NO_LANDMARK else ""
        landmark = title(dataset.landmark_names.get(known, "")) or known
        yield SheetPhoto(thumbnail(dataset.read(i), THUMBNAIL), key_text(dataset.index["key"][i]), landmark)
