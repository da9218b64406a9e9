"""The page of a search for duplicates: its pairs side by side."""
from typing import Any

import numpy as np
import pandas as pd

from pages.templates import fill, thumbnail
from preprocess.dedup.pairs import Duplicates
from preprocess.dedup.report import pair_rows
from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from preprocess.sources import PhotoSource

PAIRS = 50
THUMBNAIL = 160  # pixels


def render(samples: pd.DataFrame, duplicates: Duplicates, lines: list[str], source: PhotoSource) -> str:
    """The page as HTML: `lines` of text, then at most PAIRS pairs, the most distant first.

    The same photos give the same bytes. Args: samples: the table that the pairs' rows refer to.
    """
    farthest = np.concatenate([found.pairs[-PAIRS:] for found in duplicates.values()])
    farthest = farthest[np.argsort(-farthest["distance"].astype(int), kind="stable")][:PAIRS]
    pairs: list[dict[str, Any]] = pair_rows(samples, farthest).to_dict("records")
    for side in "ab":
        for pair, uri in zip(pairs, _thumbnails(samples.iloc[farthest[side]], source)):
            pair[f"uri_{side}"] = uri
    return fill("duplicates", lines="\n".join(lines), pairs=pairs,
                total=sum(len(found.pairs) for found in duplicates.values()))


def _thumbnails(photos: pd.DataFrame, source: PhotoSource) -> list[str]:
    """A data URI of each photo, "" for one that is gone."""
    paths = photos["path"].tolist() if "path" in photos else None
    uris = []
    for location in source.locate(photos["id"].tolist(), paths):
        try:
            uris.append(thumbnail(normalize(location.read(), THUMBNAIL, quality=90).data, THUMBNAIL))
        except Rejected:
            uris.append("")
    return uris
