"""clean.py on tables of the size of Google Landmarks v2."""
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.scale_tables import ADDED, CLEAN, OTHERS, Part, class_sizes, write_csv


@settings(max_examples=200)
@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 500), st.floats(0.1, 0.6))
def test_sizes_have_the_asked_sum_and_bounds(classes, least, span, fill):
    images = int(classes * (least + fill * span))
    try:
        sizes = class_sizes(Part(classes, images, least, least + span))
    except ValueError:
        assume(False)
    assert sizes.sum() == images and len(sizes) == classes
    assert sizes.min() >= least and sizes.max() <= least + span and (np.diff(sizes) <= 0).all()


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="no Pareto law has these sizes"):
        class_sizes(Part(10, 9, 1, 5))


def test_the_clean_table_has_the_known_totals_and_a_long_tail():
    sizes = np.concatenate([class_sizes(part) for part in CLEAN])
    assert (len(sizes), sizes.sum(), sizes.min(), sizes.max()) == (81_313, 1_580_470, 2, 6272)
    assert (sizes >= 10).sum() == 39_676 and round((sizes <= 5).mean(), 2) == 0.38
    assert np.sort(sizes)[-813:].sum() > 0.1 * sizes.sum()


def test_the_full_table_has_the_known_totals():
    sizes = np.concatenate([class_sizes(part) for part in (*CLEAN, OTHERS)])
    assert (len(sizes), sizes.sum() + class_sizes(ADDED).sum()) == (203_094, 4_132_914)


def test_the_real_number_of_classes_and_images_remains_at_15(call, tmp_path):
    """1,223,195 images of 27,756 classes (D2-MetricLearning, preprocess.py)."""
    write_csv(tmp_path / "train.csv")
    done = call("preprocess/clean.py", "--csv", tmp_path / "train.csv", "--min-images", 15, "--out", tmp_path / "s.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("kept 1,223,195 images of 27,756 classes, dropped 357,275 images of 53,557 classes with "
                           "fewer than 15 images\n")
    rows = pd.read_csv(tmp_path / "s.csv")
    assert rows.columns.tolist() == ["id", "landmark_id", "label", "split"] and len(rows) == 1_223_195
    counts = np.bincount(rows["label"])
    assert len(counts) == 27_756 and counts.min() == 15 and set(rows["split"]) == {"train"}
    assert rows.drop_duplicates("label").sort_values("label")["landmark_id"].is_monotonic_increasing


def test_the_benchmark_of_a_table_says_what_each_step_takes(process, photos, tmp_path):
    photos[1].to_csv(tmp_path / "samples.csv", index=False)
    done = process("benchmarks/sample_table.py", "--samples", tmp_path / "samples.csv")
    step = r"\d+\.\d\d s"
    line = (rf"87 rows: read {step}, check {step}, shuffle {step}, digest {step}; peak \d+ MB \(\d+ MB after the "
            r"imports\), \d+ bytes a row, of which the table holds \d+\n")
    assert re.fullmatch(line, done.stdout), done.stderr


@pytest.mark.heavy
def test_the_full_set_of_the_clean_classes(call, tmp_path):
    """Stage 2 of the 3rd place of 2020: 3,223,078 images, clean's labels and folds, added photos always train."""
    write_csv(tmp_path / "clean.csv")
    write_csv(tmp_path / "full.csv", full=True)
    clean = tmp_path / "clean-samples.csv"
    done = call("preprocess/clean.py", "--csv", tmp_path / "clean.csv", "--min-images", 1, "--folds", 5, "--val-fold",
                0, "--out", clean)
    assert done.returncode == 0, done.stderr
    done = call("preprocess/clean.py", "--csv", tmp_path / "full.csv", "--min-images", 1, "--classes-like", clean,
                "--folds-like", clean, "--out", tmp_path / "s.csv")
    assert "kept 3,223,078 images of 81,313 classes, dropped 0 images of 0 classes" in done.stdout, done.stderr
    rows, before = pd.read_csv(tmp_path / "s.csv").set_index("id"), pd.read_csv(clean).set_index("id")
    assert rows.loc[before.index].equals(before)
    added = rows.drop(before.index)
    assert len(added) == 1_642_608 and set(added["fold"]) == {-1} and set(added["split"]) == {"train"}
