"""The solution of the 2019 challenge becomes rows of the sample table."""
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.samples.raw_tables import Columns, query_rows, read_queries


@settings(max_examples=100)
@given(st.lists(st.lists(st.integers(0, 9).map(str), max_size=4), min_size=1, max_size=20))
def test_queries_against_a_loop(landmarks):
    kept = ["0", "3", "4", "8"]
    queries = pd.DataFrame({"id": [f"q{i}" for i in range(len(landmarks))], "landmarks": map(" ".join, landmarks),
                            "split": "test"})
    expected = []
    for i, asked in enumerate(landmarks):
        labels = [kept.index(landmark) for landmark in dict.fromkeys(asked) if landmark in kept]
        if labels or not asked:
            truths = " ".join(map(str, labels)) if len(labels) > 1 else ""
            expected.append([f"q{i}", "test", *(labels[:1] or [-1]), -1, truths])
    rows = query_rows(queries, kept)
    assert list(rows) == ["id", "split", "label", "fold", "truths"] and rows["label"].dtype == "int64"
    assert rows.to_numpy().tolist() == expected


def test_no_query_gives_no_row():
    assert query_rows(pd.DataFrame({"id": [], "landmarks": [], "split": []}, dtype="str"), ["1"]).empty


def test_queries_may_be_named_by_path(tmp_path):
    (tmp_path / "s.csv").write_text("file,landmarks\ntest/A.jpg,9 8\nb.png,\n")
    queries = read_queries(tmp_path / "s.csv", Columns(path="file"), usage=False)
    assert queries["path"].tolist() == ["test/A.jpg", "b.png"] and queries["landmarks"].tolist() == ["9 8", ""]
    assert queries["id"].str.fullmatch("test-a-[0-9a-f]{16}|b").all()
