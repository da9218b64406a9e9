"""Say which label each class had and has now, to carry a head over from one stage to the next or to rebuild it.

    python preprocess/label_map.py --old samples.csv|DATASET --new samples.csv|DATASET --out map.csv

map.csv has landmark_id, old_label, new_label, in the order of the new labels, then of the old ones that are gone;
-1: the class is not there.
"""
import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from arcshard.console import Parser, run
from preprocess.samples.sample_table import class_ids, read_samples
from preprocess.samples.text_table import write_table
from shards import Dataset
from shards.classes import label_map
from shards.dataset import splits

ABSENT = -1


def main() -> None:
    args = parse_args()
    table = map_table(landmark_ids(args.old), landmark_ids(args.new))
    write_table(args.out, table)
    in_old, in_new = table["old_label"] != ABSENT, table["new_label"] != ABSENT
    print(f"{(in_old & in_new).sum():,} classes kept, {(~in_old).sum():,} new, {(~in_new).sum():,} gone")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--old", type=Path, required=True, help="sample table or dataset that the head was trained on")
    parser.add_argument("--new", type=Path, required=True, help="sample table or dataset of the next stage")
    parser.add_argument("--out", type=Path, required=True, help="the map, CSV or Parquet")
    return parser.parse_args()


def map_table(old_ids: Sequence[str], new_ids: Sequence[str]) -> pd.DataFrame:
    """Columns landmark_id, old_label, new_label of all classes, see above."""
    gone = np.flatnonzero(label_map(new_ids, old_ids) == ABSENT).tolist()
    return pd.DataFrame({"landmark_id": [*new_ids, *(old_ids[label] for label in gone)],
                         "old_label": np.concatenate([label_map(old_ids, new_ids), gone]),
                         "new_label": np.concatenate([np.arange(len(new_ids)), np.full(len(gone), ABSENT)])})


def landmark_ids(path: Path) -> list[str]:
    """Landmark ids of a dataset (a folder) or a sample table, position = label. Raises UserError for neither."""
    return Dataset(path, splits(path)[0]).landmark_ids if path.is_dir() else class_ids(read_samples(path))


if __name__ == "__main__":
    run(main)
