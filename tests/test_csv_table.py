"""Small CSV files come back as they were written; any other content is a ValueError."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcshard.csv_table import parse_table, read_table, write_table

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.tuples(TEXT, TEXT)))
def test_any_text_comes_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    write_table(path, ["a", "b"], rows)
    assert [tuple(row) for row in read_table(path, ["a", "b"])] == rows
    assert [file.name for file in path.parent.iterdir()] == ["t.csv"]


def test_a_byte_order_mark_and_empty_lines_are_skipped():
    assert parse_table(b"\xef\xbb\xbfa,b\r\n\r\n1,\r\n\n", ["a", "b"]) == [["1", ""]]


@pytest.mark.parametrize("data, reason", [
    (b"", "has the columns '', not a,b"), (b"b,a\n", "has the columns 'b,a', not a,b"), (b"a,b\n1\n", "has 1 fields"),
    (b"a,b\n1,2,3\n", "a row has 3 fields, not 2"), (b"a,b\n\xff,1\n", "cannot be read ('utf-8' codec"),
    (b'"a\nb",c\n', r"has the columns 'a\nb,c'"), (b"x" * 200_000, "cannot be read (field larger than")])
def test_other_tables_are_refused(data, reason):
    with pytest.raises(ValueError) as error:
        parse_table(data, ["a", "b"])
    assert reason in str(error.value) and "\n" not in str(error.value)
