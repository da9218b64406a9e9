"""The sample table: read as it was written, checked, shuffled and digested the same at any size."""
import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import preprocess.samples.sample_table
from arcshard.console import UserError
from preprocess.samples.sample_table import (
    check_ids,
    check_samples,
    class_ids,
    digest,
    hash_order,
    read_samples,
    shuffled,
)

COLUMNS = ["id", "landmark_id", "label", "split"]
KEYS = st.text(st.sampled_from("ab01_-"), min_size=1, max_size=4)


@st.composite
def tables(draw) -> pd.DataFrame:
    """Sample tables with texts or categories, with or without the optional columns."""
    ids = draw(st.lists(KEYS, min_size=1, max_size=30, unique=True))
    labels = draw(st.lists(st.integers(-1, 3), min_size=len(ids), max_size=len(ids)))
    splits = draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=len(ids), max_size=len(ids)))
    table = pd.DataFrame({"id": ids, "landmark_id": [["x", "10", "9", "é", ""][label] for label in labels],
                          "label": labels, "split": splits})
    if draw(st.booleans()):
        table = table.assign(landmark_id=table["landmark_id"].astype("category"), split=pd.Categorical(splits))
    return table.assign(path=[f"{id}.jpg" for id in ids]) if draw(st.booleans()) else table


@settings(max_examples=100)
@given(tables(), st.integers(0, 3))
def test_the_order_is_that_of_a_plain_sort(table, seed):
    """By split, then by the hex text of BLAKE2b, then by id."""
    salted = [hashlib.blake2b(f"{seed}:{id}".encode(), digest_size=8).hexdigest() for id in table["id"]]
    expected = [row[2] for row in sorted(zip(table["split"], salted, table["id"]))]
    rows = shuffled(table, seed)
    assert rows["id"].tolist() == expected and list(rows) == list(table)
    assert rows.set_index("id").loc[table["id"]].reset_index().equals(table)


@settings(max_examples=100)
@given(tables(), st.randoms(use_true_random=False))
def test_the_digest_is_that_of_all_texts_sorted_by_id(table, random):
    rows = sorted(zip(*(table[column].astype("str") for column in table)))
    text = "\0".join("\n".join(column) for column in zip(*rows))
    order = random.sample(range(len(table)), len(table))
    assert digest(table.iloc[order]) == hashlib.sha256(text.encode()).hexdigest()


def test_pieces_do_not_change_the_digest_nor_the_order(monkeypatch):
    table = pd.DataFrame({"id": [f"k{i}" for i in range(100)], "landmark_id": "1", "label": 0, "split": "train"})
    before = digest(table), hash_order(table["id"], 7).tolist()
    monkeypatch.setattr(preprocess.samples.sample_table, "BATCH", 7)
    assert (digest(table), hash_order(table["id"], 7).tolist()) == before


def test_equal_hashes_are_ordered_by_id(monkeypatch):
    monkeypatch.setattr(preprocess.samples.sample_table, "hash_order", lambda ids, seed: np.zeros(len(ids), np.uint64))
    table = pd.DataFrame({"id": ["c", "a", "b"], "landmark_id": "1", "label": 0, "split": ["val", "val", "train"]})
    assert shuffled(table, 0)["id"].tolist() == ["b", "a", "c"]


def test_columns_that_are_not_ours_change_nothing():
    table = pd.DataFrame([("a", "1", 0, "train")], columns=COLUMNS)
    assert digest(table) == digest(table.assign(fold=3)) != digest(table.assign(truths=""))
    assert list(shuffled(table.assign(fold=3, truths=""), 0)) == [*COLUMNS, "truths"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_is_read_with_its_optional_columns(tmp_path, suffix):
    table = pd.DataFrame({"fold": [0, -1], "truths": ["", "1 0"], "label": [0, 1], "split": ["val", "test"],
                          "path": ["b/x.jpg", "y.jpg"], "id": ["1e10", "007"], "landmark_id": ["1", "nan"]})
    path = tmp_path / f"samples.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    rows = read_samples(path)
    assert list(rows) == ["id", "landmark_id", "label", "split", "path", "truths"] and rows["label"].dtype == np.int64
    assert rows.astype({"label": "int64"} | {name: "str" for name in rows if name != "label"}).equals(table[list(rows)])
    assert rows["split"].cat.categories.tolist() == ["test", "val"]
    assert rows["id"].dtype == rows["path"].dtype == "str" and rows["landmark_id"].dtype == "category"


@pytest.mark.parametrize("label", ["", "zero", "-2", "1.0", "9999999999", "1\n"])
def test_a_label_is_a_whole_number(tmp_path, label):
    (tmp_path / "s.csv").write_text(f'id,landmark_id,label,split\na,1,"{label}",train\n')
    with pytest.raises(UserError) as error:
        read_samples(tmp_path / "s.csv")
    assert str(error.value) == (f"{tmp_path}/s.csv has the label {label!r}; labels are -1 (no landmark), 0, 1, …: "
                                f"make the table with preprocess/clean.py")


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(-1, 3), st.sampled_from(["x", "y", "z", ""])), min_size=1,
                max_size=8))
def test_classes_are_numbered_one_to_one_or_refused(pairs):
    table = pd.DataFrame(pairs, columns=["label", "landmark_id"])
    known = sorted({pair for pair in pairs if pair[0] >= 0})
    if [label for label, _ in known] == list(range(len(known))) and len({name for _, name in known}) == len(known):
        assert class_ids(table) == [name for _, name in known]
    else:
        with pytest.raises(UserError, match=f"do not number its landmarks .* \\({len(known)} pairs of label and "
                                            f"landmark_id\\)"):
            class_ids(table)


@pytest.mark.parametrize("ids, sentence", [
    (["a", "b", "a", "b", "a"], "t.csv has the id a several times (3 rows too many): remove the "
                                "repeated rows"),
    (["a", "a\n"], "t.csv has the id 'a\\n' (1 such ids): rename those photos to 1 to 96 characters of 0-9, a-z, _ "
                   "and -"),
    (["a" * 97], f"t.csv has the id '{'a' * 97}' (1 such ids): rename those photos to 1 to 96 characters of 0-9, a-z, "
                 "_ and -"),
])
def test_unfit_ids_are_refused(ids, sentence):
    with pytest.raises(UserError) as error:
        check_ids(pd.Series(ids), "t.csv")
    assert str(error.value) == sentence


TRUTHS = ("photo a with label 1 has the truths {!r}; truths are several labels, separated by spaces, the photo's own "
          "first: make the table with clean.py")
WORD = "it is not one word, as submissions need it; rename it in the sample table, and pack again"
LINES = "with a control character,"


@pytest.mark.parametrize("column, value, sentence", [
    ("path", "", "1 photos of the sample table have no path: fill them in, or remove the column path"),
    ("path", "a\tb", f"the sample table has a path {LINES} 'a\\tb' (1 such rows): rename those"),
    ("path", "a\x7f", f"the sample table has a path {LINES} 'a\\x7f' (1 such rows): rename those"),
    ("landmark_id", "a\rb", f"the sample table has a landmark_id {LINES} 'a\\rb' (1 such rows): rename those"),
    *(("landmark_id", text, f"the sample table has the landmark id {text!r} (1 such ids): {WORD}")
      for text in ("", "Big Ben", " 10", "1\xa00")),
    *(("truths", text, TRUTHS.format(text)) for text in ("1", "0 1", "1 2", "1 1", "1 x", " 1 0", "1  0", "1 -1")),
])
def test_unfit_rows_are_refused(column, value, sentence):
    table = pd.DataFrame([("z", "9", 0, "train", "z.jpg", ""), ("a", "10", 1, "train", "a.jpg", "1 0")],
                         columns=[*COLUMNS, "path", "truths"])
    check_samples(table)
    table.loc[1, column] = value
    with pytest.raises(UserError) as error:
        check_samples(table)
    assert str(error.value) == sentence
