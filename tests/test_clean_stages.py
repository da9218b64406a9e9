"""One stage after another: the classes, labels, folds and splits of another table, and photos drawn from a class."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcshard.console import UserError
from preprocess.samples.classes import Classes, at_most, labeled, of_classes, read_classes, same_labels
from preprocess.samples.splits import every_val, like_another


def csv(path, *rows: str):
    path.write_text("\n".join(rows) + "\n")
    return path


def photos(*landmarks: str) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"p{i}" for i in range(len(landmarks))], "landmark_id": pd.Categorical(landmarks)})


def test_a_raw_table_gives_its_classes_and_a_sample_table_their_labels_too(tmp_path):
    raw = csv(tmp_path / "raw.csv", "landmark_id,images", "7,a b", "30,c")
    assert read_classes(raw, "landmark_id") == (raw, ["7", "30"], False)
    samples = csv(tmp_path / "s.csv", "id,landmark_id,label,split", "a,7,1,train", "b,30,0,val", "c,,-1,test")
    assert read_classes(samples, "landmark_id") == (samples, ["30", "7"], True)
    other = csv(tmp_path / "other.csv", "name,what", "a,tower")
    assert read_classes(other, "what").landmark_ids == ["tower"]


def test_photos_of_other_classes_are_left_out_and_labels_follow_the_table(tmp_path):
    like = Classes(tmp_path / "s.csv", ["30", "7"], True)
    kept = of_classes(photos("7", "8", "30", "7"), like, "train.csv")
    assert kept["id"].tolist() == ["p0", "p2", "p3"]
    assert labeled(kept, same_labels(["7", "30"], like))["label"].tolist() == [1, 0, 1]


def test_labels_without_photos_are_refused():
    like = Classes("s.csv", ["30", "7", "8"], True)
    with pytest.raises(UserError) as error:
        same_labels(["7", "30", "99"], like)
    assert str(error.value) == (
        "the labels of s.csv cannot be kept: 1 of its classes have too few images here; lower --min-images, or give "
        "the raw table that it was made from")


def test_a_table_of_other_classes_is_refused():
    with pytest.raises(UserError) as error:
        of_classes(photos("7"), Classes("s.csv", ["8"], False), "train.csv")
    assert str(error.value) == ("s.csv has no class of train.csv: check that --classes-like names a table of the same "
                                "data set")


def table(*ids: str) -> pd.DataFrame:
    return pd.DataFrame({"id": ids, "label": 0, "split": "train"})


def test_photos_of_the_other_table_keep_fold_and_split_and_the_others_train(tmp_path):
    header = "id,landmark_id,label,split"
    other = csv(tmp_path / "s.csv", f"{header},fold", "b,1,0,val,0", "gone,1,0,train,2", "c,1,0,train,1")
    rows = like_another(table("a", "b", "c"), other)
    assert rows["split"].tolist() == ["train", "val", "train"] and rows["fold"].tolist() == [-1, 0, 1]
    other = csv(tmp_path / "s.csv", header, "b,1,0,val")
    rows = like_another(table("a", "b", "c"), other)
    assert list(rows) == ["id", "label", "split"] and rows["split"].tolist() == ["train", "val", "train"]


@pytest.mark.parametrize("row, sentence", [
    ("x,1,0,val,0", "{} has no photo of this table: check that --folds-like names a sample table of the same data set"),
    ("a,1,0,val,one", "{} has the fold 'one'; folds are -1 (none), 0, 1, 2, …: make the table with "
                      "preprocess/clean.py"),
])
def test_folds_of_an_unfit_table_are_refused(tmp_path, row, sentence):
    other = csv(tmp_path / "s.csv", "id,landmark_id,label,split,fold", row)
    with pytest.raises(UserError) as error:
        like_another(table("a"), other)
    assert str(error.value) == sentence.format(other)


def test_a_class_whose_only_photo_would_be_left_out_is_refused():
    rows = pd.DataFrame({"id": ["a", "b", "c"], "label": [0, 1, 0], "split": ["val", "val", "train"]})
    assert every_val(rows, 1).equals(rows)
    with pytest.raises(UserError, match="takes the only photo of 1 classes: choose --min-images 2 or more"):
        every_val(rows, 2)


@settings(max_examples=100)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60), images=st.integers(1, 8), seed=st.integers(0, 9))
def test_the_draw_keeps_that_many_a_class_and_the_order(labels, images, seed):
    rows = pd.DataFrame({"id": [f"p{i}" for i in range(len(labels))], "label": labels})
    drawn = at_most(rows, images, seed)
    expected = {label: min(images, labels.count(label)) for label in labels}
    assert drawn["label"].value_counts().to_dict() == expected and drawn.index.is_monotonic_increasing
    again = at_most(rows.sample(frac=1, random_state=seed), images, seed)
    assert {*again["id"]} == {*drawn["id"]}


def test_an_added_photo_moves_at_most_one_other_and_the_seed_draws_others():
    rows = pd.DataFrame({"id": [f"p{i}" for i in range(100)], "label": np.arange(100) % 2})
    before = {*at_most(rows, 10, 0)["id"]}
    for number in range(20):
        added = pd.concat([rows, pd.DataFrame({"id": [f"new{number}"], "label": 1})])
        assert len(before - {*at_most(added, 10, 0)["id"]}) <= 1
    assert before != {*at_most(rows, 10, 1)["id"]}
