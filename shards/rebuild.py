"""What can be made from the tars alone: the tables of a split, and the options that speak for its photos."""
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from arcshard.console import progress
from shards.format import INDEX_DTYPE, index_name, labels_name
from shards.npy import RowFile, new_rows
from shards.shard_content import ShardContent, read_shard

QUALITY = 90  # of JPEGs that predict.py must encode; what the photos in the tars were encoded with is not known


def read_shards(tars: list[Path], what: str, workers: int, decode: bool) -> Iterator[ShardContent]:
    """What each tar holds, in their order, read by `workers` processes; `what` names the progress bar."""
    tasks = (delayed(read_shard)(tar, decode) for tar in tars)
    return progress(Parallel(workers, return_as="generator")(tasks), total=len(tars), unit="shard", what=what)


def write_index(folder: Path, split: str, contents: Iterable[ShardContent]) -> dict[str, int]:
    """Write SPLIT.index.npy and SPLIT.labels.npy of shards 0, 1, 2, … into `folder`, a shard at a time.

    Returns what dataset.json says of the split: samples and shards.
    """
    counts = {"samples": 0, "shards": 0}
    with (new_rows(folder / index_name(split), INDEX_DTYPE) as add_rows,
          new_rows(folder / labels_name(split), np.dtype("<i4")) as add_labels):
        for number, content in enumerate(contents):
            content.rows["shard"] = number
            add_rows(content.rows)
            add_labels(content.labels)
            counts = {"samples": counts["samples"] + len(content.rows), "shards": number + 1}
    return counts


def found_packing(how: str, indexes: list[RowFile]) -> dict[str, Any]:
    """What dataset.json says where nobody knows how the photos were packed: queries are shrunk as these are at most."""
    short_sides = [int(np.minimum(rows["width"], rows["height"]).max()) for index in indexes for rows in index.chunks()]
    return {how: True, "short_side": max(short_sides), "quality": QUALITY}
