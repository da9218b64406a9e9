"""Make up a table of the size of Google Landmarks v2, for tests and benchmarks of clean.py.

    python benchmarks/scale_tables.py FILE.csv [--full]

Totals are the real ones: the clean set has 1,580,470 photos of 81,313 classes of 2 to 6,272 photos, the full set
4,132,914 of 203,094, of which 3,223,078 are of clean's classes (cvdfoundation/google-landmark, README; 2nd place of
the 2021 retrieval challenge). Of the clean classes 39,676 have 10 photos or more, and 27,756, with 1,223,195
photos, 15 or more (D2-MetricLearning). Within these totals the sizes follow a Pareto curve.
"""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from arcshard.console import Parser, run

CLEAN_IMAGES, CLEAN_CLASSES = 1_580_470, 81_313
FULL_IMAGES, FULL_CLASSES, CLEAN_CLASSES_IN_FULL = 4_132_914, 203_094, 3_223_078
KEPT_IMAGES, KEPT_CLASSES, CLASSES_OF_10 = 1_223_195, 27_756, 39_676  # at --min-images 15, 15 and 10
LARGEST = 6272  # photos of a clean class


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE.csv", help="where to write the table")
    parser.add_argument("--full", action="store_true", help="the full set; default: the clean one")
    args = parser.parse_args()
    write_csv(args.file, args.full)


class Part(NamedTuple):
    """Some classes: how many, how many photos they have together, and each of them at least and at most."""

    classes: int
    images: int
    least: int
    most: int


# 38 % of the clean classes have at most 5 photos (the same sources); how many photos those and the classes of 6-9 and
# 10-14 have is not known, only their sum.
CLEAN = [Part(KEPT_CLASSES, KEPT_IMAGES, 15, LARGEST),
         Part(CLASSES_OF_10 - KEPT_CLASSES, 142_000, 10, 14),
         Part(10_738, 80_000, 6, 9),
         Part(30_899, CLEAN_IMAGES - KEPT_IMAGES - 222_000, 2, 5)]
ADDED = Part(CLEAN_CLASSES, CLEAN_CLASSES_IN_FULL - CLEAN_IMAGES, 1, 4000)
OTHERS = Part(FULL_CLASSES - CLEAN_CLASSES, FULL_IMAGES - CLEAN_CLASSES_IN_FULL, 1, 1000)


def class_sizes(part: Part) -> np.ndarray:
    """Photos of each class, int64 (classes,), largest first: quantiles of a Pareto law cut to least … most.

    Its exponent is found by bisection, so that the sum is `images`. Raises ValueError if no exponent gives that.
    """
    low, high = -20.0, 21.0  # the sum falls with the exponent; 0, where the law is another, is no midpoint
    for _ in range(60):
        exponent = (low + high) / 2
        low, high = (exponent, high) if _quantiles(part, exponent).sum() > part.images else (low, exponent)
    wanted = _quantiles(part, high)
    sizes = np.floor(wanted).astype(np.int64)
    missing = part.images - sizes.sum()
    if not 0 <= missing <= np.count_nonzero(sizes < part.most):
        raise ValueError(f"no Pareto law has these sizes: {part}")
    nearest = np.argsort(np.where(sizes < part.most, sizes - wanted, 1), kind="stable")
    sizes[nearest[:missing]] += 1
    return np.sort(sizes)[::-1]


def landmark_table(full: bool = False) -> pa.Table:
    """Columns id and landmark_id of the clean set, sorted by landmark as Kaggle's, or of the full set, shuffled.

    The clean photos are in the full set, with the same landmarks.
    """
    sizes = np.concatenate([class_sizes(part) for part in CLEAN])
    ranks = np.repeat(np.arange(CLEAN_CLASSES), sizes)
    if full:
        added = np.repeat(np.arange(CLEAN_CLASSES), class_sizes(ADDED))
        others = np.repeat(np.arange(CLEAN_CLASSES, FULL_CLASSES), class_sizes(OTHERS))
        ranks = np.concatenate([ranks, added, others])
    ids = np.arange(len(ranks), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # odd, so no number comes twice
    landmarks = ranks * 100_003 % FULL_CLASSES  # coprime: a permutation
    order = np.argsort(ids) if full else np.argsort(landmarks, kind="stable")
    return pa.table({"id": pa.array(map("{:016x}".format, ids[order].tolist()), pa.string()),
                     "landmark_id": pa.array(landmarks[order]).cast(pa.string())})


def write_csv(path: Path, full: bool = False) -> None:
    """Write landmark_table as Kaggle's train.csv (id, landmark_id) or, full, as GLDv2's (id, url, landmark_id)."""
    table = landmark_table(full)
    if full:
        urls = pc.binary_join_element_wise(
            "https://upload.wikimedia.org/wikipedia/commons/a/ab/A_photo_of_a_landmark_", table["id"], ".jpg", "")
        table = table.add_column(1, "url", urls)
    csv.write_csv(table, path, csv.WriteOptions(quoting_style="none", quoting_header="none"))


def _quantiles(part: Part, exponent: float) -> np.ndarray:
    """The law's sizes at even steps, 0 and 1 included (Pareto, cut at `most`), float64 (classes,)."""
    at = np.linspace(0, 1, part.classes)
    return part.least * (1 - at + at * (part.least / part.most) ** exponent) ** (-1 / exponent)


if __name__ == "__main__":
    run(main)
