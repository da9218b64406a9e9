"""clean.py: which classes stay, their labels, the folds, the test queries, and the answer to each mistake."""
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from arcshard.console import UserError, run
from arcshard.names import MISSING
from preprocess.clean import main
from preprocess.samples.classes import large_classes, read_names
from preprocess.samples.splits import stratified_folds
from retrieval.submission import write_submission
from tests.commands import ROOT, run_here

SCRIPT = ROOT / "preprocess" / "clean.py"


def clean(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the command on train.csv in `folder`; the table goes to samples.csv."""
    return run_here(SCRIPT, "--csv", "train.csv", "--out", "samples.csv", "--min-images", "1", *options, cwd=folder)


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
    unused = pd.Series(pd.Categorical(["10", "9"], categories=["10", "9", "b"]))
    assert large_classes(unused, 0, "x") == ["9", "10"]
    assert large_classes(pd.Series(["123456789012345678901", "5"]), 1, "x") == ["5", "123456789012345678901"]


def test_white_space_around_texts_is_no_part_of_them(tmp_path):
    """Of ids, landmarks, headers and a solution's Usage; numbers stay as they are written."""
    write_csv(tmp_path / "train.csv",
              [" id, landmark_id ", "a1, 0", " a2,\u00a01e5", "a3\t,0", "a4,0 ", "a5, 007", "a6,1e5"])
    write_csv(tmp_path / "solution.csv", ["id , landmarks, Usage", "q1 , 007,Public ", "q2,  ,Private"])
    done = clean(tmp_path, "--solution", "solution.csv", "--usage-splits")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path)
    assert list(zip(rows["id"], rows["landmark_id"])) == [
        ("a1", "0"), ("a2", "1e5"), ("a3", "0"), ("a4", "0"), ("a5", "007"), ("a6", "1e5"), ("q1", "007"), ("q2", "")]
    assert rows["split"].tolist() == ["train"] * 6 + ["test_public", "test_private"]


@pytest.mark.parametrize("landmark", MISSING)
def test_what_stands_for_a_missing_landmark_is_no_class(tmp_path, landmark):
    write_csv(tmp_path / "train.csv", ["id,landmark_id", "a,1", f"b, {landmark}", f"c,{landmark} "])
    done = clean(tmp_path)
    assert done.returncode == 2 and not (tmp_path / "samples.csv").exists()
    assert f"has no landmark_id in row 2 below the header ({landmark!r}, 2 such rows)" in done.stderr


def test_landmarks_of_several_words_become_one_that_a_submission_can_hold(tmp_path):
    """In every table that names them: photos, classes of another table, and names."""
    write_csv(tmp_path / "train.csv", ["id,landmark_id", "a,Eiffel Tower", "b,Big \u00a0 Ben", "c,x",
                                       "d, Eiffel Tower "])
    done = clean(tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("put _ for white space in the landmark ids of 2 classes\n")
    expected = [["a", "Eiffel_Tower"], ["b", "Big_Ben"], ["c", "x"], ["d", "Eiffel_Tower"]]
    assert table(tmp_path)[["id", "landmark_id"]].to_numpy().tolist() == expected
    write_submission(tmp_path / "submission.csv", ["q"], ["Eiffel_Tower"], [1.0])
    (tmp_path / "train.csv").rename(tmp_path / "raw.csv")
    write_csv(tmp_path / "before.csv", ["id,landmark_id,label,split", "a,Eiffel Tower,0,train", "b,Big Ben,1,train"])
    for like, kept in (("raw.csv", expected), ("before.csv", [row for row in expected if row[0] != "c"])):
        done = clean(tmp_path, "--csv", "raw.csv", "--classes-like", like)
        assert done.returncode == 0 and table(tmp_path)[["id", "landmark_id"]].to_numpy().tolist() == kept
    write_csv(tmp_path / "names.csv", ["landmark_id,category", " Eiffel Tower,La tour"])
    assert read_names(tmp_path / "names.csv") == {"Eiffel_Tower": "La tour"}


def test_classes_without_a_train_photo_are_counted(tmp_path):
    write_csv(tmp_path / "train.csv", ["id,landmark_id", *(f"p{i},{name}" for i, name in enumerate("aabbccde"))])
    done = clean(tmp_path, "--folds", "2", "--val-fold", "0")
    rows = table(tmp_path)
    val, train = (set(rows["landmark_id"][rows["split"] == split]) for split in ("val", "train"))
    assert len(val - train) == 1
    assert "1 classes have no train photo: their only 1 photos are val\n" in done.stdout
    assert "no train photo" not in clean(tmp_path, "--folds", "2", "--val-fold", "0", "--min-images", "2").stdout


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


@settings(max_examples=100)
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


@settings(max_examples=100)
@given(labels=st.lists(st.integers(0, 30), min_size=5, max_size=80), k=st.integers(2, 5))
def test_folds_spread_every_class_however_small(labels, k):
    folds = stratified_folds(np.array(labels), k, 0)
    for label in set(labels):
        counts = np.bincount(folds[np.array(labels) == label], minlength=k)
        assert counts.max() - counts.min() <= 1
    assert np.ptp(np.bincount(folds, minlength=k)) <= 1


def test_solution_becomes_the_split_test(photos):
    """Two landmarks: the first that was kept, and all in truths; none given: -1; all dropped: left out."""
    write_csv(photos / "solution.csv", ["id,landmarks,Usage", "q1,2 10 9,Public", "q2,,Private",
                                        "q3,2,Public", "q4,9,Public", "q5,77 2,Public", "q6,,Public"])
    done = clean(photos, "--min-images", "3", "--folds", "2", "--solution", "solution.csv")
    assert done.returncode == 0, done.stderr
    rows = table(photos)
    assert list(rows) == ["id", "landmark_id", "label", "split", "fold", "truths"]
    assert (rows[rows["split"] != "test"]["truths"] == "").all()
    assert rows.query("split == 'test'").to_numpy().tolist() == [
        ["q1", "10", "1", "test", "-1", "1 0"], ["q2", "", "-1", "test", "-1", ""],
        ["q4", "9", "0", "test", "-1", ""], ["q6", "", "-1", "test", "-1", ""]]
    assert done.stdout.endswith("test: 2 queries with a landmark, 2 without, 2 left out since none of their "
                                "landmarks was kept\n")


def test_usage_tells_two_test_splits(photos):
    write_csv(photos / "solution.csv", ["id,landmarks,Usage", "q1,9,Public", "q2,,Private", "q3,9,Ignored", "q4,9,",
                                        "q5,77,Private"])
    done = clean(photos, "--solution", "solution.csv", "--usage-splits")
    assert done.returncode == 0, done.stderr
    test = table(photos).query("split != 'train'")
    assert test.to_numpy().tolist() == [["q1", "9", "1", "test_public"], ["q2", "", "-1", "test_private"]]
    assert ("left out 2 queries whose Usage is neither Public nor Private\ntest: 1 queries with a landmark, 1 without, "
            "1 left out") in done.stdout


def test_a_part_of_the_fold_validates_and_its_rest_is_left_out(tmp_path):
    """Rows 0, 3, 6, … of the fold, in the order of the table: the 3rd place's index % 15 == 0."""
    write_csv(tmp_path / "train.csv", ["id,landmark_id", *(f"a{i},{i % 7}" for i in range(200))])
    assert clean(tmp_path, "--folds", "4", "--val-fold", "2").returncode == 0
    whole = table(tmp_path)
    done = clean(tmp_path, "--folds", "4", "--val-fold", "2", "--val-every", "3")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path)
    assert rows[rows["split"] == "val"].equals(whole[whole["split"] == "val"].iloc[::3].set_index(
        rows.index[rows["split"] == "val"]))
    assert rows[rows["split"] == "train"]["id"].tolist() == whole[whole["split"] == "train"]["id"].tolist()
    assert "left out 33 images of fold 2: one in 3 of it is val\n" in done.stdout


def test_a_stage_after_another_keeps_its_labels_and_validation_photos(photos):
    """Of photos that the table before did not have, those of its classes train."""
    write_csv(photos / "before.csv", ["id,landmark_id,label,split,fold", "d,9,1,val,0", "nan,10,0,train,1"])
    done = clean(photos, "--classes-like", "before.csv", "--folds-like", "before.csv")
    assert done.returncode == 0, done.stderr
    assert (photos / "samples.csv").read_text() == (
        "id,landmark_id,label,split,fold\n0012e3,10,0,train,-1\n1e10,9,1,train,-1\n007,9,1,train,-1\n"
        "nan,10,0,train,1\nb-1,9,1,train,-1\nc_2,10,0,train,-1\nd,9,1,val,0\n")
    assert done.stdout.startswith("left out 1 images of classes that before.csv does not have\nkept 7 images of 2 ")
    write_csv(photos / "raw.csv", ["id,landmark_id", "x,9", "y,10"])
    assert clean(photos, "--classes-like", "raw.csv").returncode == 0
    assert set(zip(table(photos)["landmark_id"], table(photos)["label"])) == {("9", "0"), ("10", "1")}


def test_an_image_folder_becomes_a_table_with_paths(tmp_path):
    for path in ("cat/B 1.JPG", "dog/b1.jpg", "dog/b2.jpg", "dog/notes.txt"):
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(b"")
    done = run_here(SCRIPT, "--image-folder", "tree", "--out", "samples.csv", "--min-images", "2", cwd=tmp_path)
    assert done.stdout == ("found 3 photos, and 1 other files that are left out\n"
                           "kept 2 images of 1 classes, dropped 1 images of 1 classes with fewer than 2 images\n")
    rows = table(tmp_path)
    assert list(rows) == ["id", "landmark_id", "label", "split", "path"]
    assert rows["path"].tolist() == ["dog/b1.jpg", "dog/b2.jpg"] and rows["landmark_id"].tolist() == ["dog", "dog"]


def test_a_drawn_number_of_images_a_class(photos):
    """After --min-images: a class of 3 is no small one because 2 are drawn."""
    done = clean(photos, "--min-images", "3", "--images-per-class", "2")
    assert done.returncode == 0 and done.stdout.endswith("drew 4 of them, at most 2 per class\n"), done.stderr
    drawn = table(photos)
    assert drawn["landmark_id"].value_counts().to_dict() == {"9": 2, "10": 2}
    assert clean(photos, "--min-images", "3", "--images-per-class", "2", "--seed", "1").returncode == 0
    assert set(table(photos)["id"]) != set(drawn["id"])


def test_solution_without_folds_adds_no_fold_column(photos):
    write_csv(photos / "solution.csv", ["id,landmarks", "q1,9"])
    assert clean(photos, "--solution", "solution.csv").returncode == 0
    assert list(table(photos)) == ["id", "landmark_id", "label", "split"]


MISTAKES = {
    "no file": (["--csv", "no.csv"], "there is no file no.csv: check the path"),
    "folder": (["--csv", "."], "there is no file .: check the path"),
    "columns": (["--csv", "columns.csv"],
                "columns.csv lacks the columns landmark_id (it has id, label): check the path"),
    "empty": (["--csv", "empty.csv"],
              "empty.csv is empty, not a CSV with the columns id, landmark_id: check that it is the right file"),
    "header only": (["--csv", "header.csv"],
                    "header.csv has a header but no rows: add a row for each photo"),
    "double id": (["--csv", "double.csv"],
                  "double.csv has the id x several times (2 rows too many): remove the repeated rows"),
    "bad id": (["--csv", "bad.csv"],
               "bad.csv has the id 'a.b' (2 such ids): rename those photos to 1 to 96 characters of 0-9, a-z, _ and -"),
    "no landmark": (["--csv", "blank.csv"],
                    "blank.csv has no landmark_id in row 2 below the header ('', 1 such rows): remove those rows, or "
                    "rename the class"),
    "missing in a list": (["--csv", "lists.csv"],
                          "lists.csv has no landmark_id in row 3 below the header ('nan', 1 such rows): remove those "
                          "rows, or rename the class"),
    "missing in a solution": (["--solution", "unknown.csv"],
                              "unknown.csv has no landmarks in row 2 below the header ('None', 2 such rows): leave the "
                              "field empty where a query has no landmark"),
    "semicolons": (["--csv", "semicolons.csv"], "semicolons.csv separates its columns by ';': save it with commas"),
    "tabs": (["--csv", "tabs.csv"], "tabs.csv separates its columns by '\\t': save it with commas"),
    "classes become one": (["--csv", "towers.csv"],
                           "towers.csv has the classes 'Eiffel  Tower' and 'Eiffel_Tower', which are the same with _ "
                           "for white space: rename one of them"),
    "no tree": (["--image-folder", "no"], "PHOTOS/no/: No such file or directory; check the path"),
    "no image at all": (["--min-images", "0"], "--min-images is 0: give at least 1"),
    "val without folds": (["--val-fold", "0"],
                          "--val-fold needs --folds, which is missing: add it"),
    "val out of range": (["--folds", "5", "--val-fold", "5"],
                         "--val-fold is 5: give one of the folds, 0 to 4"),
    "one fold": (["--folds", "1"], "--folds is 1: give 2 to 8, the number of images"),
    "no class left": (["--min-images", "5"],
                      "--min-images 5 leaves no class: the largest of train.csv has 4 images, choose at most that"),
    "two sources": (["--csv", "train.csv", "--image-folder", "tree"],
                    "argument --image-folder: not allowed with argument --csv; see clean.py --help"),
    "folder and columns": (["--image-folder", "tree", "--label-column", "x"],
                           "--id-column, --label-column, --path-column and --solution need --csv, but "
                           "--image-folder is given: leave them out, or list the photos in a table"),
    "folder and queries": (["--image-folder", "tree", "--solution", "clash.csv"],
                           "--id-column, --label-column, --path-column and --solution need --csv, but "
                           "--image-folder is given: leave them out, or list the photos in a table"),
    "negative seed": (["--seed", "-1"], "--seed is -1: give at least 0"),
    "no image a class": (["--images-per-class", "0"], "--images-per-class is 0: give at least 1"),
    "no val row": (["--folds", "2", "--val-fold", "0", "--val-every", "0"], "--val-every is 0: give at least 1"),
    "every without fold": (["--folds", "2", "--val-every", "2"],
                           "--val-every needs --val-fold, which is missing: add it"),
    "every takes a class": (["--folds", "2", "--val-fold", "1", "--val-every", "4"],
                            "--val-every 4 takes the only photo of 1 classes: choose --min-images 2 or more"),
    "folds twice": (["--folds", "2", "--folds-like", "samples.csv"],
                    "--folds and --folds-like exclude each other, but both are given: leave one out"),
    "usage of nothing": (["--usage-splits"],
                         "--usage-splits needs --solution, which is missing: add it"),
    "usage missing": (["--solution", "clash.csv", "--usage-splits"],
                      "clash.csv lacks the columns Usage (it has id, landmarks): check the path"),
    "line break": (["--csv", "lines.csv"],
                   "lines.csv has a landmark_id with a control character, 'x\\ny' (1 such rows): rename those"),
    "column": (["--label-column", "name"],
               "train.csv lacks the columns name (it has id, url, landmark_id): check the path"),
    "query is a photo": (["--solution", "clash.csv"],
                         "train.csv with clash.csv has the id a several times (1 rows too many): remove the repeated "
                         "rows"),
    "no number": (["--min-images", "many"],
                  "argument --min-images: invalid int value: 'many'; see clean.py --help"),
}


@pytest.mark.parametrize("options, sentence", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_get_one_sentence_and_exit_code_2(photos, monkeypatch, capsys, options, sentence):
    write_csv(photos / "columns.csv", ["id,label", "a,1"])
    (photos / "empty.csv").write_bytes(b"")
    write_csv(photos / "header.csv", ["id,landmark_id"])
    write_csv(photos / "double.csv", ["id,landmark_id", "x,1", "y,1", "x,1", "x,2"])
    write_csv(photos / "bad.csv", ["id,landmark_id", "a.b,1", "ok,1", "ß,1"])
    write_csv(photos / "blank.csv", ["id,landmark_id", "a,1", "b,"])
    write_csv(photos / "lists.csv", ["landmark_id,images", "1,a", "2,b c", " nan,d"])
    write_csv(photos / "unknown.csv", ["id,landmarks", "q1,", "q2,None", "q3,9 -1"])
    write_csv(photos / "semicolons.csv", ["id;landmark_id", "a;1"])
    write_csv(photos / "tabs.csv", ["id\tlandmark_id", "a\t1"])
    write_csv(photos / "towers.csv", ["id,landmark_id", "a,Eiffel  Tower", "b,b", "c,Eiffel_Tower"])
    write_csv(photos / "clash.csv", ["id,landmarks", "a,9"])
    write_csv(photos / "lines.csv", ["id,landmark_id", 'a,"x', 'y"'])
    monkeypatch.chdir(photos)
    source = [] if "--image-folder" in options else ["--csv", "train.csv"]
    monkeypatch.setattr("sys.argv", ["clean.py", *source, "--out", "samples.csv", "--min-images", "1", *options])
    with pytest.raises(SystemExit, match="2"):
        run(main)
    assert capsys.readouterr().err == f"clean.py: {sentence.replace('PHOTOS', str(photos))}\n"
    assert not (photos / "samples.csv").exists()


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "train.csv").write_bytes(b"id,landmark_id\n\xff\xfe,1\n")
    done = clean(tmp_path)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("clean.py: train.csv is not a CSV file in UTF-8 (")


def test_too_many_folds_are_refused():
    with pytest.raises(UserError, match="--folds is 4: give 2 to 3, the number of images"):
        stratified_folds(np.array([0, 0, 1]), 4, 0)


def test_without_an_option_classes_of_fewer_than_15_are_dropped(tmp_path):
    """The filter of D2-MetricLearning, with which 1,223,195 photos of 27,756 classes remain."""
    rows = [f"a{i},1" for i in range(15)] + [f"b{i},2" for i in range(14)]
    write_csv(tmp_path / "train.csv", ["id,landmark_id", *rows])
    done = run_here(SCRIPT, "--csv", "train.csv", "--out", "samples.csv", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "samples.csv").read_text().count("\n") == 1 + 15
