"""The benchmarks run and say what they promise; their figures are nobody's assertion."""
import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

from tests.forked import Forked


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
    (["--data", ".", "--size", "0"], "--size is 0: give at least 1"),
])
def test_mistakes_are_one_sentence(call, refused, options, sentence):
    refused(call("benchmarks/throughput.py", *options), sentence)


@pytest.mark.heavy
def test_the_gpu_benchmark_walks_every_part_without_a_gpu(dataset_path, tmp_path):
    benchmark = Forked("benchmarks/gpu.py", "--data", dataset_path, "--out", tmp_path, "--dry-run")
    assert benchmark.communicate(timeout=500) and benchmark.returncode == 0, "\n".join(benchmark.communicate())
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == ["parity", "decode", "step", "both", "heads", "trace",
                                                                "train"]
    assert all(row["met"] is None for row in rows), "a CPU meets no mark and misses none"
    found = {row["what"]: row["found"] for row in rows}
    assert all(value.startswith("0.00 in the worst photo") for what, value in found.items() if "gray levels" in what)
    assert found["configs/demo.yaml, stopped and continued"].startswith("stopped after")
    assert found["waits of the host for the device, a step"] == "0" and "skipped" in found["tests/test_gpu.py"]
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("\n| ") == 1 + len(rows) and "dry run yes" in page and (tmp_path / "trace.json.gz").exists()


@pytest.fixture
def gpu(module, dataset_path, tmp_path):
    """The benchmark as a module, and a scale for a CPU."""
    args = argparse.Namespace(data=dataset_path, out=tmp_path, variants=["eager"])
    return module("gpu"), module("gpu_scale").Scale.tiny(args)


def test_a_part_that_fails_or_takes_too_long_is_a_row_of_the_table(gpu, module, tmp_path):
    benchmark, scale = gpu
    broken = replace(scale, data=tmp_path / "nowhere")
    failed, = benchmark.in_a_process("both", broken, 120)
    assert failed.met is False and failed.found.startswith("UserError: ")
    late, = benchmark.in_a_process("both", scale, 0.1)
    assert late.met is False and late.found == "took more than 0 s"
    assert module("gpu_scale").table([failed]).endswith("ends      MISSED")


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_nothing_that_a_part_started_outlives_a_benchmark_that_is_stopped(dataset_path, tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--data", dataset_path, "--out", tmp_path, "--dry-run", "--parts",
               "both"]
    process = subprocess.Popen(list(map(str, command)), cwd=Path(__file__).parents[1], stderr=subprocess.PIPE,
                               text=True)
    until = time.monotonic() + 120
    while not ((tmp_path / "gpu.json").exists() and (parts := [  # written before the first part starts
            child for child in children(process.pid) if b"gpu.py" in Path(f"/proc/{child}/cmdline").read_bytes()])):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.terminate()
    assert process.communicate(timeout=60)[1].splitlines()[-1] == "interrupted" and process.returncode == 130
    assert not any(Path(f"/proc/{part}").exists() for part in parts)


def test_only_waits_of_the_updating_thread_within_an_update_count(gpu, module):
    step = module("gpu_step")

    def event(name, thread, start, end):
        return SimpleNamespace(name=name, thread=thread, time_range=SimpleNamespace(start=start, end=end),
                               device_type=SimpleNamespace(name="CPU"))

    events = [event(step.SPAN, 1, 10, 20), event("cudaStreamSynchronize", 1, 12, 13),
              event("cudaStreamSynchronize", 2, 12, 13), event("cudaStreamSynchronize", 1, 25, 26),
              event("cudaLaunchKernel", 1, 14, 15), event(step.SPAN, 1, 30, 40),
              event("cudaEventSynchronize", 1, 39, 50)]
    assert step.inside(events, step.WAITS) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to use")
def test_the_gpu_benchmark_needs_a_gpu(call, refused, dataset_path):
    refused(call("benchmarks/gpu.py", "--data", dataset_path), "torch finds no GPU")


@pytest.mark.heavy
def test_throughput_adds_up_the_ranks(on_ranks, dataset_path, tmp_path):
    done = on_ranks(2, "benchmarks/throughput.py", "--data", dataset_path, "--json", tmp_path / "t.json", "--size", 48,
                    "--batch-size", 4, "--batches", 2, "--rounds", 1, "--backbone", "test_efficientnet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("-bound") == 1
    assert json.loads((tmp_path / "t.json").read_text())["settings"]["images_a_round"] == 16
