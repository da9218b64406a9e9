"""The benchmarks run and say what they promise; their figures are nobody's assertion."""
import json

import pytest


@pytest.mark.heavy
def test_throughput_prints_and_writes_every_round(call, dataset_path, tmp_path):
    done = call("benchmarks/throughput.py", "--data", dataset_path, "--size", 48, "--batch-size", 8, "--batches", 2,
                "--rounds", 2, "--num-threads", 1, "--backbone", "test_efficientnet", "--json", tmp_path / "t.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "t.json").read_text())
    assert len(report["rounds"]) == 2 and report["settings"]["samples"] == 60
    for figures in report["rounds"]:
        assert set(figures) == {"loader", "dali", "step", "both", "wait_share"}
        assert all(value > 0 for value in figures.values()) and figures["wait_share"] <= 1
    assert "loader/dali" in done.stdout and "-bound" in done.stdout


@pytest.mark.parametrize("options, sentence", [
    (["--data", "no/such/dataset"], "there is no folder no/such/dataset"),
    (["--data", ".", "--size", "0"], "--size must be at least 1; got 0"),
])
def test_mistakes_are_one_sentence(call, refused, options, sentence):
    refused(call("benchmarks/throughput.py", *options), sentence)
