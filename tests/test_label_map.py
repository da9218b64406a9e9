"""label_map.py: which row of the old head is which row of the new one."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.label_map import landmark_ids, map_table
from shards.classes import label_map

IDS = st.lists(st.sampled_from(["1", "2", "10", "a", "é", "", "1e10", "nan"]), unique=True)


@settings(max_examples=200)
@given(IDS, IDS)
def test_a_head_is_carried_over_row_by_row(old, new):
    labels = label_map(old, new)
    assert labels.dtype == np.int64 and labels.shape == (len(new),)
    assert labels.tolist() == [old.index(id) if id in old else -1 for id in new]
    table = map_table(old, new)
    assert table["landmark_id"].tolist() == new + [id for id in old if id not in new]
    assert table["old_label"].tolist() == [old.index(id) if id in old else -1 for id in table["landmark_id"]]
    assert table["new_label"].tolist() == [new.index(id) if id in new else -1 for id in table["landmark_id"]]


def test_between_a_dataset_and_a_sample_table(call, dataset_path, tmp_path):
    (tmp_path / "new.csv").write_text("id,landmark_id,label,split\na,1014,0,train\nb,5,1,train\nc,,-1,test\n")
    done = call("preprocess/label_map.py", "--old", dataset_path, "--new", tmp_path / "new.csv", "--out",
                tmp_path / "map.csv")
    assert (done.returncode, done.stdout) == (0, "1 classes kept, 1 new, 5 gone\n"), done.stderr
    assert (tmp_path / "map.csv").read_text() == (
        "landmark_id,old_label,new_label\n1014,2,0\n5,-1,1\n1000,0,-1\n1007,1,-1\n1021,3,-1\n1028,4,-1\n1035,5,-1\n")


def test_a_dataset_and_its_sample_table_have_the_same_classes(photos, dataset_path, tmp_path):
    photos[1].to_csv(tmp_path / "samples.csv", index=False)
    assert landmark_ids(tmp_path / "samples.csv") == landmark_ids(dataset_path)


@pytest.mark.parametrize("old, sentence", [
    ("no.csv", "there is no file no.csv: check the path"),
    ("preprocess", "preprocess is not a dataset, it has no dataset.json: give the folder that "
                   "preprocess/make_shards.py wrote"),
])
def test_what_has_no_classes_is_refused(call, refused, tmp_path, old, sentence):
    refused(call("preprocess/label_map.py", "--old", old, "--new", old, "--out", tmp_path / "map.csv"), sentence)


def test_labels_with_gaps_are_refused(call, refused, tmp_path):
    pd.DataFrame({"id": ["a"], "landmark_id": ["1"], "label": [1], "split": ["train"]}).to_csv(tmp_path / "s.csv")
    refused(call("preprocess/label_map.py", "--old", tmp_path / "s.csv", "--new", tmp_path / "s.csv", "--out",
                 tmp_path / "map.csv"), "the labels of the sample table do not number its landmarks 0, 1, …, one for "
                                        "each landmark_id")
