"""clean.py: which classes stay, their labels, the folds, the test queries, and the answer to each mistake."""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from arcshard.console import UserError
from preprocess.clean import large_classes, test_rows as query_rows
from preprocess.folds import stratified_folds

SCRIPT = Path(__file__).parents[1] / "preprocess" / "clean.py"


def clean(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the command on train.csv in `folder`; the table goes to samples.csv."""
    command = [sys.executable, str(SCRIPT), "--csv", "train.csv", "--out", "samples.csv", "--min-images", "1", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def write_csv(path: Path, rows: list[str]) -> None:
    path.write_text("\n".join(rows) + "\n")


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "samples.csv", dtype=str, na_filter=False)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Landmark 9 with 4 photos, 10 with 3, 2 with 1, in a mixed order."""
    write_csv(tmp_path / "train.csv", ["id,url,landmark_id", "0012e3,,10", "1e10,,9", "a,,2", "007,,9",
                                       "nan,,10", "b-1,,9", "c_2,,10", "d,,9"])
    return tmp_path


def test_small_classes_are_dropped_and_texts_stay_texts(photos):
    """Labels follow the numeric order (9 before 10); ids that look like numbers or NaN are not touched."""
    done = clean(photos, "--min-images", "3")
    assert done.returncode == 0, done.stderr
    assert (photos / "samples.csv").read_text() == (
        "id,landmark_id,label,split\n0012e3,10,1,train\n1e10,9,0,train\n007,9,0,train\nnan,10,1,train\n"
        "b-1,9,0,train\nc_2,10,1,train\nd,9,0,train\n")
    assert done.stdout == ("kept 7 images of 2 classes, dropped 1 images of 1 classes with fewer than "
                           "3 images\n")


def test_landmarks_sort_as_texts_unless_all_are_integers():
    assert large_classes(pd.Series(["10", "9", "007", "7"]), 1, "x") == ["007", "7", "9", "10"]
    assert large_classes(pd.Series(["10", "9", "b"]), 1, "x") == ["10", "9", "b"]
    assert large_classes(pd.Series(["123456789012345678901", "5"]), 1, "x") == ["5", "123456789012345678901"]


def test_val_fold_becomes_the_split_val(photos):
    done = clean(photos, "--min-images", "3", "--folds", "3", "--val-fold", "1")
    assert done.returncode == 0, done.stderr
    rows = table(photos)
    assert list(rows) == ["id", "landmark_id", "label", "split", "fold"]
    assert ((rows["split"] == "val") == (rows["fold"] == "1")).all() and set(rows["fold"]) == {"0", "1", "2"}
    assert rows.groupby("fold").size().max() - rows.groupby("fold").size().min() <= 1
    first = (photos / "samples.csv").read_bytes()
    clean(photos, "--min-images", "3", "--folds", "3", "--val-fold", "1")
    assert (photos / "samples.csv").read_bytes() == first
    clean(photos, "--min-images", "3", "--folds", "3")
    assert set(table(photos)["split"]) == {"train"}


@settings(deadline=None, max_examples=100)
@given(labels=st.lists(st.integers(0, 5), min_size=12, max_size=80), k=st.integers(2, 5),
       seed=st.integers(0, 99))
def test_folds_are_those_of_scikit_learn(labels, k, seed):
    """On labels that scikit-learn takes without a warning: at least k of each class."""
    labels = np.array([label for label in labels if labels.count(label) >= k] or [7] * k)
    expected = np.empty(len(labels), int)
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels)):
        expected[held_out] = fold
    assert np.array_equal(stratified_folds(labels, k, seed), expected)


@settings(deadline=None, max_examples=100)
@given(labels=st.lists(st.integers(0, 30), min_size=5, max_size=80), k=st.integers(2, 5))
def test_folds_spread_every_class_however_small(labels, k):
    folds = stratified_folds(np.array(labels), k, 0)
    for label in set(labels):
        counts = np.bincount(folds[np.array(labels) == label], minlength=k)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(folds, minlength=k)) <= 1


def test_solution_becomes_the_split_test(photos):
    """Two landmarks: the first that was kept; none given: -1; all dropped: left out."""
    write_csv(photos / "solution.csv", ["id,landmarks,Usage", "q1,2 10 9,Public", "q2,,Private",
                                        "q3,2,Public", "q4,9,Public", "q5,77 2,Public", "q6,,Public"])
    done = clean(photos, "--min-images", "3", "--folds", "2", "--solution", "solution.csv")
    assert done.returncode == 0, done.stderr
    test = table(photos).query("split == 'test'")
    assert test.to_numpy().tolist() == [["q1", "10", "1", "test", "-1"], ["q2", "", "-1", "test", "-1"],
                                        ["q4", "9", "0", "test", "-1"], ["q6", "", "-1", "test", "-1"]]
    assert done.stdout.endswith("test: 2 queries with a landmark, 2 without, 2 left out since none of their "
                                "landmarks was kept\n")


def test_solution_without_folds_adds_no_fold_column(photos):
    write_csv(photos / "solution.csv", ["id,landmarks", "q1,9"])
    assert clean(photos, "--solution", "solution.csv").returncode == 0
    assert list(table(photos)) == ["id", "landmark_id", "label", "split"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9).map(str), max_size=4), min_size=1, max_size=20))
def test_queries_against_a_loop(landmarks):
    kept = ["0", "3", "4", "8"]
    queries = pd.DataFrame({"id": [f"q{i}" for i in range(len(landmarks))],
                            "landmarks": map(" ".join, landmarks)})
    expected = []
    for i, asked in enumerate(landmarks):
        found = [landmark for landmark in asked if landmark in kept]
        if found:
            expected.append([f"q{i}", found[0], kept.index(found[0]), "test", -1])
        elif not asked:
            expected.append([f"q{i}", "", -1, "test", -1])
    assert query_rows(queries, kept).to_numpy().tolist() == expected


MISTAKES = {
    "no file": (["--csv", "no.csv"], "there is no file no.csv: check the path"),
    "folder": (["--csv", "."], "there is no file .: check the path"),
    "columns": (["--csv", "columns.csv"],
                "columns.csv must have the columns id, landmark_id, but lacks landmark_id and has id, label: "
                "check the path"),
    "empty": (["--csv", "empty.csv"],
              "empty.csv must be a CSV with the columns id, landmark_id, but is empty: check that it is the "
              "right file"),
    "header only": (["--csv", "header.csv"],
                    "header.csv must have a row for each photo, but has only the header: fill it"),
    "double id": (["--csv", "double.csv"],
                  "an id must occur once, but double.csv has x several times (2 rows too many): remove the "
                  "repeated rows"),
    "bad id": (["--csv", "bad.csv"],
               "an id must be 1 to 96 characters of 0-9, a-z, _ and -, but bad.csv has 'a.b' (2 such ids): "
               "rename those photos"),
    "no landmark": (["--csv", "blank.csv"],
                    "each image of blank.csv must have a landmark_id, but 1 have none: remove those rows"),
    "val without folds": (["--val-fold", "0"],
                          "--val-fold names one of the folds that --folds cuts, but --folds is missing: "
                          "add it"),
    "val out of range": (["--folds", "5", "--val-fold", "5"],
                         "--val-fold must be one of the folds 0 to 4, not 5"),
    "one fold": (["--folds", "1"], "--folds must be 2 to the number of images (8), not 1"),
    "no class left": (["--min-images", "5"],
                      "--min-images must leave a class, but 5 leaves none: the largest of train.csv has 4 "
                      "images, choose at most that"),
    "query is a photo": (["--solution", "clash.csv"],
                         "an id must occur once, but train.csv with clash.csv has a several times (1 rows "
                         "too many): remove the repeated rows"),
    "no number": (["--min-images", "many"],
                  "argument --min-images: invalid int value: 'many'; see clean.py --help"),
}


@pytest.mark.parametrize("options, sentence", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_get_one_sentence_and_exit_code_2(photos, options, sentence):
    write_csv(photos / "columns.csv", ["id,label", "a,1"])
    (photos / "empty.csv").write_bytes(b"")
    write_csv(photos / "header.csv", ["id,landmark_id"])
    write_csv(photos / "double.csv", ["id,landmark_id", "x,1", "y,1", "x,1", "x,2"])
    write_csv(photos / "bad.csv", ["id,landmark_id", "a.b,1", "ok,1", "ß,1"])
    write_csv(photos / "blank.csv", ["id,landmark_id", "a,1", "b,"])
    write_csv(photos / "clash.csv", ["id,landmarks", "a,9"])
    done = clean(photos, *options)
    assert (done.returncode, done.stdout, done.stderr) == (2, done.stdout, f"clean.py: {sentence}\n")
    assert not (photos / "samples.csv").exists()


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"id,landmark_id\n\xff\xfe,1\n")
    done = clean(tmp_path)
    assert done.returncode == 2 and "train.csv must be a CSV file in UTF-8, but is not (" in done.stderr


def test_too_many_folds_are_refused():
    with pytest.raises(UserError, match=r"--folds must be 2 to the number of images \(3\), not 4"):
        stratified_folds(np.array([0, 0, 1]), 4, 0)


def test_without_an_option_classes_of_fewer_than_15_are_dropped(tmp_path):
    """The filter of D2-MetricLearning, with which 1,223,195 photos of 27,756 classes remain."""
    rows = [f"a{i},1" for i in range(15)] + [f"b{i},2" for i in range(14)]
    write_csv(tmp_path / "train.csv", ["id,landmark_id", *rows])
    done = subprocess.run([sys.executable, str(SCRIPT), "--csv", "train.csv", "--out", "samples.csv"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "samples.csv").read_text().count("\n") == 1 + 15
