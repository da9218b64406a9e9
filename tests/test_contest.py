"""A submission has the ids and the order of Kaggle's sample; the public train set is told from the hidden one."""
import pytest

from arcshard.console import UserError
from retrieval import submission
from retrieval.submission import budget, in_sample_order, is_public_train, read_sample


def test_rows_come_in_the_sample_s_order(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("id,landmarks\nb,1 0.5\na,\nc,\n")
    assert read_sample(path) == ["b", "a", "c"]
    assert in_sample_order(["a", "b", "c"], read_sample(path), path) == [1, 0, 2]


@pytest.mark.parametrize("ids, sentence", [
    (["a"], "1 of its ids have no photo, and 0 photos are not among them, such as b"),
    (["a", "b", "x"], "0 of its ids have no photo, and 1 photos are not among them, such as x")])
def test_missing_and_foreign_photos_are_counted(tmp_path, ids, sentence):
    with pytest.raises(UserError, match=sentence):
        in_sample_order(ids, ["b", "a"], tmp_path / "s.csv")


@pytest.mark.parametrize("text, sentence", [
    ("id,label\na,\n", "has the columns 'id,label', not id,landmarks: give Kaggle's sample_submission.csv"),
    ("", "has the columns '', not id,landmarks: give"), ("id,landmarks\na\n", "a row has 1 fields, not 2: give"),
    ("id,landmarks\na,\na,\n", "has a more than once")])
def test_another_table_is_refused(tmp_path, text, sentence):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_sample(tmp_path / "s.csv")


@pytest.mark.parametrize("rows, end, public", [(3, "\n", True), (3, "", True), (4, "\n", False), (2, "", False)])
def test_the_public_train_set_is_told_by_its_rows(tmp_path, monkeypatch, rows, end, public):
    monkeypatch.setattr(submission, "PUBLIC_TRAIN", 3)
    (tmp_path / "train.csv").write_text("\n".join(["id,landmark_id", *["a,1"] * rows]) + end)
    assert is_public_train(tmp_path / "train.csv") is public


@pytest.mark.parametrize("photos, seconds, sentence", [
    (237, 10.0, "237 photos in 10.0 s: 23.7/s; the contest's 117,577 photos would take 1.4 h of its 12 h"),
    (117577, 43200, "117,577 photos in 43,200.0 s: 2.7/s; the contest's 117,577 photos would take 12.0 h of its 12 h"),
    (10, 5.0, "10 photos in 5.0 s: 2.0/s; the contest's 117,577 photos would take 16.3 h and it gives 12 h")])
def test_the_contest_s_hours_follow_from_the_rate(photos, seconds, sentence):
    assert budget(photos, seconds) == sentence
