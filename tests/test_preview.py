"""python -m loader preview: what it shows is what training sees."""
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcshard import console
from loader import Loader, View
from loader.__main__ import GAP, main
from shards import Dataset

VIEWS = sorted((Path(__file__).parent.parent / "configs" / "views").glob("*.yaml"))


@pytest.fixture
def preview(dataset_path, tmp_path, monkeypatch):
    """The command in this process: exit code."""
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["loader", "preview", str(dataset_path), "--out", str(tmp_path / "sheet.png"),
                                          *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            console.run(main)
        return ended.value.code or 0
    return run


def tiles(path, size):
    """(rows, columns, size, size, 3) RGB."""
    picture = cv2.imread(str(path))[..., ::-1]
    rows, columns = (side // (size + GAP) for side in picture.shape[:2])
    cells = picture.reshape(rows, size + GAP, columns, size + GAP, 3).swapaxes(1, 2)
    return cells[:, :, GAP:, GAP:]


def test_the_sheet_holds_the_pixels_of_training_and_of_evaluation(preview, dataset_path, tmp_path):
    (tmp_path / "preset.yaml").write_text("view: {framing: long}\ntrain: {size: 48, lr: 1}\nhead: {scale: 30}\n")
    assert preview("--config", tmp_path / "preset.yaml", "--photos", 3, "--views", 1) == 0
    shown = tiles(tmp_path / "sheet.png", 48)
    assert shown.shape[:2] == (3, 2)
    train = Dataset(dataset_path)
    seen = next(iter(Loader(train, batch_size=3, size=48, view=View(framing="long"))))  # views of positions 0, 1, 2
    whole = next(iter(Loader(train, batch_size=60, size=48, view=View(framing="long"), train=False)))
    assert np.array_equal(shown[:, 1], seen.images) and np.array_equal(shown[:, 0], whole.images[seen.ids])


def test_stages_that_differ_in_size_or_view_follow_each_other(preview, tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("view: {area: [0.5, 1.0]}\ntrain: {size: 48}\n")
    (tmp_path / "preset.yaml").write_text("config: base.yaml\nstages:\n  low: {size: 32}\n  more: {size: 32, lr: 1}\n"
                                          "  high: {epochs: 2}\n  last: {view: {flip: 0}}\n")
    assert preview("--config", tmp_path / "preset.yaml", "--photos", 2, "--views", 3) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "low, more: 32 pixels, area (0.5, 1.0)", "high: 48 pixels, area (0.5, 1.0)",
        "last: 48 pixels, area (0.5, 1.0), flip 0.0"]
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    low, high, last = np.split(picture, np.cumsum([2 * (32 + GAP), 2 * (48 + GAP)]))
    assert last.shape == high.shape == (2 * (48 + GAP), 4 * (48 + GAP), 3) and not np.array_equal(last, high)
    assert (low[:, 4 * (32 + GAP):] == 255).all() and (low[:, :4 * (32 + GAP)] < 200).any()


@pytest.mark.parametrize("preset", VIEWS, ids=lambda path: path.stem)
def test_every_preset_of_views_draws(preset, preview, tmp_path):
    assert preview("--config", preset, "--photos", 2, "--views", 3) == 0
    shown = tiles(tmp_path / "sheet.png", 224)
    assert shown.shape[:2] == (2, 4) and not np.array_equal(shown[0, 1], shown[0, 2])


@pytest.mark.parametrize("words, sentence", [
    (["--photos", "0"], "--photos is 0: give at least 1"),
    (["--config", "no.yaml"], "no.yaml is not a preset, a YAML file of options"),
    (["--config", "README.md"], "README.md is not a preset, a YAML file of options"),
    (["--split", "none"], "has no split 'none': choose one of"),
])
def test_a_mistake_is_one_sentence(words, sentence, preview, capsys, tmp_path):
    assert preview(*words) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("text, sentence", [
    ("view: {flip: 2}", "stages.main: view.flip is 2: give 0 to 1"),
    ("view: {flop: 1}", "there is no option view.flop (did you mean view.flip?)"),
    ("view: 5", "view is 5: give a mapping of its fields"),
    ("stages: {a: {view: {area: [1]}}}", "stages.a: view.area is [1]: give a list of 2 numbers"),
    ("train: {size: 0}", "train.size is 0: give a positive number"),
])
def test_a_wrong_view_is_named(text, sentence, preview, capsys, tmp_path):
    (tmp_path / "preset.yaml").write_text(text)
    assert preview("--config", tmp_path / "preset.yaml") == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1
