"""Tables are read as their texts, or refused in one sentence, whatever is in the file."""
import csv
import io
import sys
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcshard.console import UserError
from arcshard.names import MISSING
from preprocess.clean import main
from preprocess.samples.text_table import column_names, read_columns, write_table

FIELDS = st.one_of(st.sampled_from(["1e10", "007", "nan", "NA", "", "-0", "1.50", "True", "None", " a ", "\ufeff",
                                    "a b", "a_b"]),
                   st.text(st.characters(codec="utf-8"), max_size=8))


def csv_bytes(rows: list[tuple[str, ...]], end: str, quoting: int, bom: bool) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end, quoting=quoting).writerows(rows)
    return out.getvalue().encode("utf-8-sig" if bom else "utf-8")


@settings(max_examples=200)
@given(rows=st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"]),
       bom=st.booleans())
def test_every_quoted_text_is_read_as_it_is(tmp_path_factory, rows, end, bom):
    path = tmp_path_factory.getbasetemp() / "quoted.csv"
    path.write_bytes(csv_bytes([("id", "x"), *rows], end, csv.QUOTE_ALL, bom))
    table = read_columns(path, ["x", "id"])
    assert list(zip(table["id"], table["x"])) == rows and table["x"].dtype == "category"


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.text(st.sampled_from('ab,"\r\n\0 id'), max_size=40).map(str.encode)))
def test_any_bytes_are_a_table_or_refused_in_one_sentence(tmp_path_factory, data):
    for name in ("any.csv", "any.parquet"):
        path = tmp_path_factory.getbasetemp() / name
        path.write_bytes(b"id,landmark_id\n" + data if name == "any.csv" else data)
        try:
            read_columns(path, ["id", "landmark_id"])
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)


@settings(max_examples=100)
@given(landmarks=st.lists(FIELDS, min_size=1, max_size=8), parquet=st.booleans())
def test_landmark_ids_survive_cleaning_or_are_refused(tmp_path_factory, landmarks, parquet):
    """An independent reader finds in the sample table what an independent writer put into train.csv."""
    folder = tmp_path_factory.getbasetemp()
    out = folder / ("samples.parquet" if parquet else "samples.csv")
    rows = [(f"p{number}", landmark) for number, landmark in enumerate(landmarks)]
    (folder / "train.csv").write_bytes(csv_bytes([("id", "landmark_id"), *rows], "\n", csv.QUOTE_ALL, False))
    command = ["clean.py", "--csv", str(folder / "train.csv"), "--min-images", "1", "--out", str(out)]
    texts = {landmark.strip() for landmark in landmarks}
    words = ["_".join(landmark.split()) for landmark in landmarks]
    unfit = (not texts.isdisjoint(MISSING) or any(ord(c) < 32 or ord(c) == 127 for text in texts for c in text)
             or len(texts) > len({*words}))
    try:
        with patch.object(sys, "argv", command):
            main()
    except UserError:
        assert unfit
        return
    assert not unfit
    if parquet:
        written = pd.read_parquet(out).astype("str").to_numpy().tolist()
    else:
        written = list(csv.reader(io.StringIO(out.read_bytes().decode(), newline="")))[1:]
    assert [tuple(row[:2]) for row in written] == [(id, word) for (id, _), word in zip(rows, words)]
    assert len({(row[1], row[2]) for row in written}) == len(texts)


def test_parquet_gives_the_same_as_csv(tmp_path):
    table = pd.DataFrame({"id": ["a", None, "c"], "number": [3, 10, 3], "kind": pd.Categorical(["x", None, "x"])})
    for name in ("t.csv", "t.parquet"):
        write_table(tmp_path / name, table)
    first, second = (read_columns(tmp_path / name, ["number", "id", "kind"]) for name in ("t.csv", "t.parquet"))
    assert first.equals(second) and first["number"].tolist() == ["3", "10", "3"] and first["id"].tolist()[1] == ""
    assert column_names(tmp_path / "t.csv") == column_names(tmp_path / "t.parquet") == ["id", "number", "kind"]


def test_a_row_of_a_million_ids_is_read(tmp_path):
    """train_clean.csv has a class's ids in one field: 7 MB here, the largest real one 0.1 MB."""
    ids = " ".join(f"{number:06x}" for number in range(1 << 20))
    (tmp_path / "t.csv").write_text(f"landmark_id,images\n1,{ids}\n2,a\n")
    assert read_columns(tmp_path / "t.csv", ["images"], ["images"])["images"].tolist() == [ids, "a"]


def test_quoted_line_breaks_survive_where_a_block_ends(tmp_path):
    texts = [f"{number}" + "\n" * 5000 for number in range(2000)]
    rows = [(f"k{number}", text) for number, text in enumerate(texts)]
    (tmp_path / "t.csv").write_bytes(csv_bytes([("id", "x"), *rows], "\n", csv.QUOTE_ALL, False))
    assert read_columns(tmp_path / "t.csv", ["id", "x"])["x"].tolist() == texts


def test_empty_lines_are_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("\nid,x\n\na,b\n\n")
    assert read_columns(tmp_path / "t.csv", ["id", "x"]).to_numpy().tolist() == [["a", "b"]]


@pytest.mark.parametrize("text, sentence", [
    (b"id,x," + b"y" * 200_000, "{} is not a CSV file in UTF-8 (field larger than field limit (131072)): "
                                "save it as one"),
    (b"id,x,id\na,b,c\n", "{} has several columns 'id': rename all but one"),
    (b"id,x\na\n", "{} is not a CSV file in UTF-8 (CSV parse error: Expected 2 columns, got 1: a): save "
                   "it as one"),
    (b'id,"y\nz"\na,b\n', "{} lacks the columns x (it has id, y z): check the path"),
    (b"id,x\n", "{} has a header but no rows: add a row for each photo"),
])
def test_unfit_csv_files_are_refused(tmp_path, text, sentence):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(UserError) as error:
        read_columns(tmp_path / "t.csv", ["id", "x"])
    assert str(error.value) == sentence.format(tmp_path / "t.csv")


def test_unfit_parquet_files_are_refused(tmp_path):
    path: Path = tmp_path / "t.parquet"
    path.write_bytes(b"id,x\n")
    with pytest.raises(UserError, match=r"t.parquet is not a Parquet file \(.+\): save it as one"):
        read_columns(path, ["id", "x"])
    pd.DataFrame({"id": ["a"], "x": [1.5]}).to_parquet(path)
    with pytest.raises(UserError, match="has the type double: convert it to text or whole numbers"):
        read_columns(path, ["id", "x"])
