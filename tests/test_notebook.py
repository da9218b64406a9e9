"""The notebook's cells run from first to last, on the tests' dataset and with a tiny network."""
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from tests.random_run import save_random_run

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
SOURCES = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_no_outputs_are_kept():
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in CELLS)


def test_the_cells_run_in_order(dataset_path, tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    run = save_random_run(tmp_path / "run", classes=6)
    paths, *others = SOURCES
    for old, new in (("data/demo/dataset", str(dataset_path)), ("runs/demo", str(run)), ("package", "none"),
                     ("tf_efficientnet_lite0", "test_efficientnet"), ("96, 90", "32, 2")):
        assert old in paths
        paths = paths.replace(old, new)
    names: dict = {}
    for source in (paths, *others):
        exec(source, names)
    assert len(names["losses"]) == 2 and len(names["answers"]) == 4 and 0 <= names["right"] <= 1
    assert "the nearest photo shows the right landmark for" in capsys.readouterr().out


def test_without_the_demo_it_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="data/demo/dataset is not there: run `make demo` first"):
        exec(SOURCES[0], {})
