"""The sample table: one row a photo, columns id, landmark_id, label, split (texts, but label an integer)."""
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from arcshard.console import UserError
from shards.format import KEY_PATTERN, KEY_RULE, NO_LANDMARK, SPLIT_PATTERN

COLUMNS = ["id", "landmark_id", "label", "split"]


def read_csv(path: str | Path, columns: list[str]) -> pd.DataFrame:
    """Those columns of a CSV file, every field as its text (an id 1e10 is no number), an empty one as "".

    Raises UserError if the file is missing, no CSV, without one of the columns, or without rows.
    """
    try:
        there = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns.tolist()
        missing = [column for column in columns if column not in there]
        if missing:
            raise UserError(f"{path} must have the columns {', '.join(columns)}, but lacks "
                            f"{', '.join(missing)} and has {', '.join(there)}: check the path")
        table = pd.read_csv(path, usecols=columns, dtype=str, na_filter=False, encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"there is no file {path}: check the path") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} must be a CSV with the columns {', '.join(columns)}, but is empty: "
                        "check that it is the right file") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} must be a CSV file in UTF-8, but is not ({error}): save it as one") from None
    if table.empty:
        raise UserError(f"{path} must have a row for each photo, but has only the header: fill it")
    return table[columns]


def read_samples(path: str | Path) -> pd.DataFrame:
    """The sample table that clean.py wrote, labels as int64. Raises UserError for what is none."""
    table = read_csv(path, COLUMNS)
    wrong = ~table["label"].str.fullmatch(r"-1|\d{1,9}")
    if wrong.any():
        raise UserError(f"a label must be -1 (no landmark), 0, 1, 2, …, but {path} has "
                        f"{table['label'][wrong].iloc[0]!r}: make the table with preprocess/clean.py")
    return table.assign(label=table["label"].astype(np.int64))


def check_ids(ids: pd.Series, source: str | Path) -> None:
    """Raise UserError unless each id can be a key and occurs once; `source` names the table."""
    wrong = ~ids.str.fullmatch(KEY_PATTERN)
    if wrong.any():
        raise UserError(f"an id must be {KEY_RULE}, but {source} has {ids[wrong].iloc[0]!r} "
                        f"({wrong.sum():,} such ids): rename those photos")
    double = ids.duplicated()
    if double.any():
        raise UserError(f"an id must occur once, but {source} has {ids[double].iloc[0]} several times "
                        f"({double.sum():,} rows too many): remove the repeated rows")


def check_samples(samples: pd.DataFrame) -> None:
    """Raise UserError unless ids, split names and labels are such as the format can hold."""
    check_ids(samples["id"], "the sample table")
    names = pd.Series(samples["split"].unique())
    wrong = ~names.str.fullmatch(SPLIT_PATTERN)
    if wrong.any():
        raise UserError(f"a split's name must be characters of 0-9, a-z and _, but the sample table has "
                        f"{names[wrong].iloc[0]!r}: rename it")
    class_ids(samples)


def class_ids(samples: pd.DataFrame) -> list[str]:
    """Landmark ids, position = label. Raises UserError unless labels are 0 … C-1, one for each landmark."""
    pairs = samples.loc[samples["label"] != NO_LANDMARK, ["label", "landmark_id"]].drop_duplicates()
    pairs = pairs.sort_values("label")
    labels = pairs["label"].to_numpy()
    if not np.array_equal(labels, np.arange(len(pairs))) or pairs["landmark_id"].duplicated().any():
        raise UserError(f"the labels of a sample table must be 0, 1, …, one for each landmark_id, but the "
                        f"{len(pairs):,} pairs of label and landmark_id are not: make it with clean.py")
    return pairs["landmark_id"].tolist()


def shuffled(samples: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows by split, and within it by a hash of seed and id: an order that no library version changes."""
    salt = f"{seed}:".encode()
    order = [hashlib.blake2b(salt + key.encode(), digest_size=8).hexdigest() for key in samples["id"]]
    return samples.assign(order=order).sort_values(["split", "order", "id"])[COLUMNS].reset_index(drop=True)


def digest(samples: pd.DataFrame) -> str:
    """Hex digest of the rows, whatever their order."""
    by_id = samples.sort_values("id")
    texts = ["\n".join(by_id[column].astype(str)) for column in COLUMNS]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
