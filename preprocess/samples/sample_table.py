"""The sample table: one row a photo. clean.py writes it, make_shards.py reads it.

    id, landmark_id, label, split    texts, but label an integer: 0 … C-1, or -1 for no landmark
    path                             optional: where the photo lies, relative to --images
    truths                           optional: all true labels of a photo that has several, with spaces between

No function here makes Python objects of a whole column: see benchmarks/sample_table.py.
"""
import hashlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from arcshard.console import UserError
from preprocess.samples.text_table import column_names, read_columns
from shards.format import KEY_PATTERN, KEY_RULE, NO_LANDMARK, SPLIT_PATTERN

COLUMNS = ["id", "landmark_id", "label", "split"]
OPTIONAL = ["path", "truths"]
BATCH = 65536  # rows that are Python texts at a time


def read_samples(path: str | Path) -> pd.DataFrame:
    """The sample table (CSV or Parquet): COLUMNS and those of OPTIONAL that it has, no others.

    id and path are strings, label int64, the others categories (those of split in sorted order). Raises
    UserError for what is no such table; check_samples looks closer.
    """
    there = column_names(path)
    table = read_columns(path, [*COLUMNS, *(column for column in OPTIONAL if column in there)], ["id", "path"])
    labels, splits = table["label"].cat, table["split"].cat
    wrong = ~labels.categories.str.fullmatch(r"-1|\d{1,9}")
    if wrong.any():
        raise UserError(f"a label must be -1 (no landmark), 0, 1, 2, …, but {path} has "
                        f"{labels.categories[wrong][0]!r}: make the table with preprocess/clean.py")
    return table.assign(label=table["label"].astype(np.int64),
                        split=splits.reorder_categories(sorted(splits.categories)))


def check_ids(ids: pd.Series, source: str | Path) -> None:
    """Raise UserError unless each id can be a key and occurs once; `source` names the table."""
    wrong = ~ids.str.fullmatch(KEY_PATTERN)
    if wrong.any():
        raise UserError(f"an id must be {KEY_RULE}, but {source} has {ids[wrong].iloc[0]!r} "
                        f"({wrong.sum():,} such ids): rename those photos")
    in_order = pa.chunked_array([pa.array(ids.iloc[_order(id=ids)])])
    double = in_order[1:].filter(pc.equal(in_order[1:], in_order[:-1]))
    if len(double):
        raise UserError(f"an id must occur once, but {source} has {double[0]} several times "
                        f"({len(double):,} rows too many): remove the repeated rows")


def check_lines(texts: pd.Series, source: str | Path) -> None:
    """Raise UserError if a text of the column holds a control character: a line break, a tab, …"""
    wrong = texts[texts.str.contains(r"[\x00-\x1f\x7f]", regex=True)]
    if len(wrong):
        raise UserError(f"a {texts.name} must be one line without control characters, but {source} has "
                        f"{wrong.iloc[0]!r} ({len(wrong):,} such rows): rename those")


def check_samples(samples: pd.DataFrame) -> None:
    """Raise UserError unless each column is such as the format can hold."""
    source = "the sample table"
    check_ids(samples["id"], source)
    names = pd.Series(samples["split"].unique())
    wrong = ~names.str.fullmatch(SPLIT_PATTERN)
    if wrong.any():
        raise UserError(f"a split's name must be characters of 0-9, a-z and _, but the sample table has "
                        f"{names[wrong].iloc[0]!r}: rename it")
    check_lines(samples["landmark_id"], source)
    classes = len(class_ids(samples))
    if "path" in samples:
        check_paths(samples["path"], source)
    if "truths" in samples:
        _check_truths(samples, classes)


def check_paths(paths: pd.Series, source: str | Path) -> None:
    """Raise UserError unless each path is one line of text."""
    if (paths == "").any():
        raise UserError(f"each photo of a table with a path column must have a path, but {(paths == '').sum():,} of "
                        f"{source} have none: fill them in")
    check_lines(paths, source)


def class_ids(samples: pd.DataFrame) -> list[str]:
    """Landmark ids, position = label. Raises UserError unless labels are 0 … C-1, one for each landmark."""
    landmarks = pd.Categorical(samples["landmark_id"])
    labels = samples["label"].to_numpy(np.int64)
    known = labels != NO_LANDMARK
    pairs = np.unique(labels[known] * len(landmarks.categories) + landmarks.codes[known])
    labels, codes = np.divmod(pairs, len(landmarks.categories))
    if not np.array_equal(labels, np.arange(len(labels))) or len(np.unique(codes)) != len(codes):
        raise UserError(f"the labels of a sample table must be 0, 1, …, one for each landmark_id, but the "
                        f"{len(labels):,} pairs of label and landmark_id are not: make it with clean.py")
    return landmarks.categories[codes].tolist()


def shuffled(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows by split, and within it by a hash of seed and id: an order that no library version changes."""
    splits = pd.Categorical(samples["split"], categories=sorted(samples["split"].unique())).codes
    order = _order(split=splits, order=hash_order(samples["id"], seed), id=samples["id"])
    return samples[_columns(samples)].take(order).reset_index(drop=True)


def digest(samples: pd.DataFrame) -> str:
    """Hex digest of the rows, whatever their order; a column that is not there does not change it."""
    order, digest = _order(id=samples["id"]), hashlib.sha256()
    for number, column in enumerate(_columns(samples)):
        digest.update(b"\0" if number else b"")
        for piece in _lines(samples[column], order):
            digest.update(piece.encode())
    return digest.hexdigest()


def _columns(samples: pd.DataFrame) -> list[str]:
    return COLUMNS + [column for column in OPTIONAL if column in samples]


def _order(**keys: pd.Series | np.ndarray) -> np.ndarray:
    """Positions that sort the rows by the first key, then by the next, …"""
    return pc.sort_indices(pa.table(keys), sort_keys=[(key, "ascending") for key in keys]).to_numpy()


def _lines(column: pd.Series, order: np.ndarray) -> Iterator[str]:
    """The texts in that order with line breaks between, in pieces."""
    for start in range(0, len(order), BATCH):
        yield "\n" * (start > 0) + "\n".join(map(str, column.iloc[order[start:start + BATCH]]))


def _check_truths(samples: pd.DataFrame, classes: int) -> None:
    several = samples.loc[samples["truths"] != "", ["id", "label", "truths"]]
    known = set(map(str, range(classes)))
    for id, label, text in several.itertuples(index=False):
        truths = text.split(" ")
        if truths[0] != str(label) or not len(truths) == len(set(truths)) > 1 or not known.issuperset(truths):
            raise UserError(f"truths must be several labels with spaces between, the photo's label first, but {id} "
                            f"with label {label} has {text!r}: make the table with clean.py")


# An order of photos that depends on seed and id alone: not on the table's order, nor on any library's version.

def hash_order(ids: pd.Series, seed: int) -> np.ndarray:
    """uint64 (N,): the 8-byte BLAKE2b of "seed:id", big-endian. Sorting by it shuffles; 0.4 µs an id."""
    return np.frombuffer(b"".join(_hashes(ids, f"{seed}:".encode())), ">u8").astype(np.uint64)


def _hashes(ids: pd.Series, salt: bytes) -> Iterator[bytes]:
    for start in range(0, len(ids), BATCH):
        texts = ids.iloc[start:start + BATCH].tolist()
        yield b"".join([blake2b(salt + text.encode(), digest_size=8).digest() for text in texts])
