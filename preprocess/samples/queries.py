"""Test queries: the solution of the 2019 challenge (id, landmarks, Usage), or any table with id and landmarks."""
from pathlib import Path

import numpy as np
import pandas as pd

from preprocess.samples.photo_table import Columns, read_named
from preprocess.samples.splits import NO_FOLD
from shards.format import NO_LANDMARK

LANDMARKS, USAGE = "landmarks", "Usage"
USAGE_SPLITS = {"Public": "test_public", "Private": "test_private"}


def read_queries(source: Path, columns: Columns, usage: bool) -> pd.DataFrame:
    """Columns id, landmarks (ids with spaces between, or nothing), split, [path]; errors as in read_photos.

    usage: the split is test_public or test_private, and "" for any other Usage; else it is test.
    """
    queries = read_named(source, columns, [LANDMARKS, USAGE] if usage else [LANDMARKS])
    split = queries.pop(USAGE).astype("str").map(USAGE_SPLITS).fillna("") if usage else "test"
    return queries.assign(split=split, landmarks=queries[LANDMARKS].astype("str"))


def query_rows(queries: pd.DataFrame, landmark_ids: list[str]) -> pd.DataFrame:
    """Rows id, label, split, fold, truths, [path] for queries, without those whose landmarks were all dropped.

    truths: the labels of all landmarks that were kept, if they are several, else "". label: the first of them, as the
    1st place of 2020 took it, and -1 where landmarks is empty.
    """
    each = queries[LANDMARKS].str.split().explode().dropna()
    labels = pd.Series(pd.Index(landmark_ids).get_indexer(each), each.index, np.int64)
    pairs = labels[labels >= 0].rename("label").rename_axis("row").reset_index().drop_duplicates()
    kept = pairs.groupby("row")["label"]
    none = pd.Series(NO_LANDMARK, queries.index[~queries.index.isin(each.index)])
    label = pd.concat([kept.first(), none]).sort_index()
    truths = kept.agg(lambda several: " ".join(map(str, several)) if len(several) > 1 else "")
    truths = truths.astype("str").reindex(label.index, fill_value="")
    return queries.drop(columns=LANDMARKS).loc[label.index].assign(label=label, fold=NO_FOLD, truths=truths)
