"""The benchmarks run and say what they promise; their figures are nobody's assertion."""
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest


@pytest.mark.heavy
def test_throughput_prints_and_writes_every_round(call, dataset_path, tmp_path):
    done = call("benchmarks/throughput.py", "--data", dataset_path, "--size", 48, "--batch-size", 8, "--batches", 2,
                "--rounds", 2, "--num-threads", 1, "--backbone", "test_efficientnet", "--json", tmp_path / "t.json",
                "--picture", tmp_path / "t.svg")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "t.json").read_text())
    assert len(report["rounds"]) == 2 and report["settings"]["samples"] == 60
    for figures in report["rounds"]:
        assert set(figures) == {"read", "decode", "loader", "dali", "step", "both", "wait_share"}
        assert all(value > 0 for value in figures.values()) and figures["wait_share"] <= 1
    assert "loader / DALI" in done.stdout and "-bound" in done.stdout and "10 epochs of 1,223,195" in done.stdout
    ElementTree.parse(tmp_path / "t.svg")


def test_the_cost_of_the_order_is_shown_beside_that_of_a_small_one(call, dataset_path, tmp_path):
    done = call("benchmarks/order.py", "--data", dataset_path, "--size", 32, "--batch-size", 4, "--rounds", 2, "--json",
                tmp_path / "o.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "o.json").read_text())["rounds"]
    assert len(figures) == 2 and all(value > 0 for value in figures[0].values())
    for name in ("order 1e+10", "continue 1e+06", "steady", "10^10 / 10^6"):
        assert name in done.stdout


@pytest.mark.parametrize("options, sentence", [
    (["--data", "no/such/dataset"], "there is no folder no/such/dataset"),
    (["--data", ".", "--size", "0"], "--size must be at least 1, not 0"),
])
def test_mistakes_are_one_sentence(call, refused, options, sentence):
    refused(call("benchmarks/throughput.py", *options), sentence)


@pytest.mark.heavy
def test_throughput_adds_up_the_ranks(dataset_path, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--size", "48", "--batch-size", "4", "--batches", "2", "--rounds", "1",
               "--backbone", "test_efficientnet"]
    done = subprocess.run([*torchrun, "benchmarks/throughput.py", "--data", dataset_path, "--json", tmp_path / "t.json",
                           *options], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("-bound") == 1
    assert json.loads((tmp_path / "t.json").read_text())["settings"]["images_a_round"] == 16
