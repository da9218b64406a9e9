"""Pack a few photos of a table without writing anything, to estimate what packing all of them takes."""
import math
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from arcshard.console import size_text, time_text
from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from preprocess.packing.options import PackOptions
from preprocess.sources import PhotoSource
from shards.format import INDEX_DTYPE, TAR_BLOCK

# Bytes of a sample besides its photo: two headers, the label's block, half a block of padding on average, its rows of
# index and labels, about 60 bytes in the .idx.
OVERHEAD = 3.5 * TAR_BLOCK + INDEX_DTYPE.itemsize + 4 + 60


class Estimate(NamedTuple):
    """What `tried` of `photos` photos suggest for all: sizes in bytes, times in seconds."""

    photos: int
    tried: int
    sizes: np.ndarray
    """Bytes in the dataset of each photo that could be packed, float64."""
    seconds: float
    """To read and normalize the photos tried, in one process."""
    reasons: Counter[str]
    """Why the others were rejected."""

    def size(self, photos: int) -> float:
        """Bytes that `photos` of them are expected to take."""
        return float(self.sizes.sum()) / self.tried * photos

    def text(self, workers: int) -> str:
        """The estimate, for the user."""
        rejects = self.tried - len(self.sizes)
        scale = self.photos / self.tried
        error = 2 * math.sqrt(self.tried) * float(np.pad(self.sizes, (0, rejects)).std()) * scale
        lines = [f"estimated from {self.tried:,} of {self.photos:,} photos",
                 f"  size     {size_text(self.size(self.photos))} ± {size_text(error)}",
                 f"  time     about {time_text(self.seconds * scale / workers)} with {workers} workers "
                 f"({1000 * self.seconds / self.tried:.2f} ms per photo and worker)",
                 f"  rejects  {rejects:,} of {self.tried:,}, so about {rejects * scale:,.0f} in all"]
        return "\n".join(lines + [f"    {count:,} {reason}" for reason, count in self.reasons.most_common()])


def estimate(samples: pd.DataFrame, source: PhotoSource, options: PackOptions, count: int) -> Estimate:
    """Normalize about `count` photos, spread evenly over the shuffled table, and write nothing.

    Raises UserError for a source that has several photos for a sample, or cannot be read.
    """
    source.refuse_ambiguous(samples["id"], samples.get("path"))
    some = samples.iloc[::max(1, len(samples) // count)].iloc[:count]
    sizes, reasons = [], Counter[str]()
    start = time.perf_counter()
    for location in source.locate(some["id"].tolist(), some["path"].tolist() if "path" in some else None):
        try:
            packed = normalize(location.read(), options.short_side, options.quality, options.verify,
                               options.max_pixels)
            sizes.append(len(packed.data) + OVERHEAD)
        except Rejected as reason:
            reasons[str(reason)] += 1
    return Estimate(len(samples), len(some), np.array(sizes), time.perf_counter() - start, reasons)
