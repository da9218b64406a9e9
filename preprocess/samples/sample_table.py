"""The sample table: one row per photo. clean.py writes it, make_shards.py reads it.

    id, landmark_id, label, split    text, but label an integer: 0 … C-1, or -1 for no landmark
    path                             optional: the photo's path relative to --images
    truths                           optional: all true labels of a photo that has several, separated by spaces

To save memory, no function here turns a whole column into Python objects (benchmarks/sample_table.py).
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
from arcshard.names import check_landmarks
from preprocess.samples.text_table import column_names, read_columns
from shards.format import KEY_PATTERN, KEY_RULE, NO_LANDMARK, SPLIT_PATTERN

COLUMNS = ["id", "landmark_id", "label", "split"]
OPTIONAL = ["path", "truths"]
BATCH = 65536  # rows that are Python strings at a time


def read_samples(path: str | Path) -> pd.DataFrame:
    """Read a sample table (CSV or Parquet): COLUMNS and those of OPTIONAL that it has, no others.

    id and path are strings, label int64, the others categories (those of split sorted). Raises UserError for what is
    no such table; check_samples checks more.
    """
    there = column_names(path)
    table = read_columns(path, [*COLUMNS, *(column for column in OPTIONAL if column in there)], ["id", "path"])
    labels, splits = table["label"].cat, table["split"].cat
    wrong = ~labels.categories.str.fullmatch(r"-1|\d{1,9}")
    if wrong.any():
        raise UserError(f"{path} has the label {labels.categories[wrong][0]!r}; labels are -1 (no landmark), 0, 1, …: "
                        "make the table with preprocess/clean.py")
    return table.assign(label=table["label"].astype(np.int64),
                        split=splits.reorder_categories(sorted(splits.categories)))


def check_ids(ids: pd.Series, source: str | Path) -> None:
    """Raise UserError unless each id is a valid key and occurs once; `source` names the table."""
    wrong = ~ids.str.fullmatch(KEY_PATTERN)
    if wrong.any():
        raise UserError(f"{source} has the id {ids[wrong].iloc[0]!r} ({wrong.sum():,} such ids): rename those photos "
                        f"to {KEY_RULE}")
    in_order = pa.chunked_array([pa.array(ids.iloc[_order(id=ids)])])
    double = in_order[1:].filter(pc.equal(in_order[1:], in_order[:-1]))
    if len(double):
        raise UserError(f"{source} has the id {double[0]} several times ({len(double):,} rows too many): remove the "
                        "repeated rows")


def check_lines(texts: pd.Series, source: str | Path) -> None:
    """Raise UserError if a value of the column contains a control character: a line break, a tab, …"""
    wrong = texts[texts.str.contains(r"[\x00-\x1f\x7f]", regex=True)]
    if len(wrong):
        raise UserError(f"{source} has a {texts.name} with a control character, {wrong.iloc[0]!r} ({len(wrong):,} such "
                        "rows): rename those")


def check_samples(samples: pd.DataFrame) -> None:
    """Raise UserError for a column that the dataset format cannot hold."""
    source = "the sample table"
    check_ids(samples["id"], source)
    names = pd.Series(samples["split"].unique())
    wrong = ~names.str.fullmatch(SPLIT_PATTERN)
    if wrong.any():
        raise UserError(f"{source} has the split {names[wrong].iloc[0]!r}; names of splits are characters of 0-9, a-z "
                        "and _: rename it")
    check_lines(samples["landmark_id"], source)
    landmark_ids = class_ids(samples)
    check_landmarks(landmark_ids, source)
    if "path" in samples:
        check_paths(samples["path"], source)
    if "truths" in samples:
        _check_truths(samples, len(landmark_ids))


def check_paths(paths: pd.Series, source: str | Path) -> None:
    """Raise UserError unless each path is one line of text."""
    if (paths == "").any():
        raise UserError(f"{(paths == '').sum():,} photos of {source} have no path: fill them in, or remove the column "
                        "path")
    check_lines(paths, source)


def class_ids(samples: pd.DataFrame) -> list[str]:
    """Landmark ids, position = label. Raises UserError unless the labels are 0 … C-1, one per landmark."""
    landmarks = pd.Categorical(samples["landmark_id"])
    labels = samples["label"].to_numpy(np.int64)
    known = labels != NO_LANDMARK
    pairs = np.unique(labels[known] * len(landmarks.categories) + landmarks.codes[known])
    labels, codes = np.divmod(pairs, len(landmarks.categories))
    if not np.array_equal(labels, np.arange(len(labels))) or len(np.unique(codes)) != len(codes):
        raise UserError(f"the labels of the sample table do not number its landmarks 0, 1, …, one for each landmark_id "
                        f"({len(labels):,} pairs of label and landmark_id): make it with clean.py")
    return landmarks.categories[codes].tolist()


def shuffled(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows sorted by split, then by a hash of seed and id: an order that no library version changes."""
    split = samples["split"].astype("category").cat
    position = np.argsort(np.argsort(split.categories.to_numpy(str)))
    order = _order(split=position[split.codes], order=hash_order(samples["id"], seed), id=samples["id"])
    return samples[_columns(samples)].take(order).reset_index(drop=True)


def digest(samples: pd.DataFrame) -> str:
    """Hex digest of the rows in any order; an absent optional column does not change it."""
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
    """The values in that order, separated by line breaks, in pieces."""
    for start in range(0, len(order), BATCH):
        yield "\n" * (start > 0) + "\n".join(map(str, column.iloc[order[start:start + BATCH]]))


def _check_truths(samples: pd.DataFrame, classes: int) -> None:
    several = samples.loc[samples["truths"] != "", ["id", "label", "truths"]]
    known = set(map(str, range(classes)))
    for id, label, text in several.itertuples(index=False):
        truths = text.split(" ")
        if truths[0] != str(label) or not len(truths) == len(set(truths)) > 1 or not known.issuperset(truths):
            raise UserError(f"photo {id} with label {label} has the truths {text!r}; truths are several labels, "
                            "separated by spaces, the photo's own first: make the table with clean.py")


# An order of photos that depends only on seed and id: not on the table's order or a library's version.

def hash_order(ids: pd.Series, seed: int) -> np.ndarray:
    """The 8-byte BLAKE2b of "seed:id", big-endian, uint64 (N,). Sorting by it shuffles; 0.4 µs per id."""
    return np.frombuffer(b"".join(_hashes(ids, f"{seed}:".encode())), ">u8").astype(np.uint64)


def _hashes(ids: pd.Series, salt: bytes) -> Iterator[bytes]:
    for start in range(0, len(ids), BATCH):
        texts = ids.iloc[start:start + BATCH].tolist()
        yield b"".join([blake2b(salt + text.encode(), digest_size=8).digest() for text in texts])
