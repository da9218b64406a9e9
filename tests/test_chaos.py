"""The campaign in short: two rows once each, and that it notices what it is for."""
import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.mark.heavy
def test_two_rows_of_the_campaign(call, tmp_path):
    done = call("benchmarks/chaos.py", "--work", tmp_path, "--tries", 1, "--only", "kill -9, pack",
                "damage, embeddings, then search", "--json", tmp_path / "c.json")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "c.json").read_text())["rows"]
    assert [len(trials) for trials in rows.values()] == [1, 1], "a try each"
    assert "seed 0: 0 of 2 trials failed" in done.stdout


def test_a_row_that_is_not_there_is_one_sentence(call, refused, tmp_path):
    refused(call("benchmarks/chaos.py", "--work", tmp_path, "--only", "flood"), "--only 'flood' is no row")


@pytest.mark.parametrize("code, fault", [
    ("import time; time.sleep(300)", "hung"), ("raise RuntimeError", "traceback"),
    ("import sys; sys.exit(3)", "lost: repeated, it ended with 3"), ("print('another')", "lost: another result")])
def test_the_campaign_notices(module, monkeypatch, tmp_path, code, fault):
    """A command that hangs, breaks, fails when it is repeated, or ends with something else."""
    works, faults = module("chaos_works"), module("chaos_faults")
    monkeypatch.setattr(faults, "PATIENCE", 1)
    (tmp_path / "w.py").write_text(code)
    work = works.Work("w", works.nothing, lambda inputs, folder: [tmp_path / "w.py"], lambda folder: "result")
    trial = faults.Trial(work, SimpleNamespace(), faults.Reference("right", 0.01, 0), tmp_path / "t", random.Random(0))
    trial.folder.mkdir()
    trial.again()
    assert fault in trial.faults


@pytest.mark.parametrize("number", range(8))
def test_damage_changes_the_file(module, tmp_path, number):
    path = tmp_path / "f"
    path.write_bytes(bytes(range(1, 200)))
    assert module("chaos_damage").damage(path, random.Random(number)).startswith("f: ")
    assert Path(path).read_bytes() != bytes(range(1, 200))
