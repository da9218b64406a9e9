"""The parts of benchmarks/gpu.py: each a function from a scale to findings."""
import math
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import heads as heads_benchmark
from gpu_scale import Row, Scale
from gpu_step import CLASSES, both, step, trace

from loader import View, tune
from loader.tuning import trial
from shards import Dataset
from training.log import read

ROOT = Path(__file__).parents[1]
PARITY, DECODE_RATE, HEADS_RATIO, GROWTH = 1.0, 7000, 1.5, 1.05
VIEWS = {"area": View(area=(0.5, 1.0)), "long, rotated": View(framing="long", rotate=10),
         "short, RandAugment": View(framing="short", randaugment=3), "squash": View(framing="squash"),
         "JPEG": View(jpeg=(80, 90))}
LINES = 3  # of metrics.jsonl after which a run is stopped


def parity(scale: Scale) -> list[Row]:
    """Gray levels between what the GPU's loader and the CPU's give; on a CPU, between it and itself."""
    rows = []
    for name, view in VIEWS.items():
        pairs = zip(scale.loader(view, "cpu", 32), scale.loader(view, batch_size=32))
        apart = [level for cpu, other in islice(pairs, scale.parity_batches)
                 for level in (cpu.images.float() - other.images.cpu().float()).abs().mean((1, 2, 3)).tolist()]
        rows.append(scale.row("parity", f"{name}: gray levels in the mean",
                              f"{max(apart):.2f} in the worst photo, {statistics.mean(apart):.2f} in all",
                              f"< {PARITY:g} in the worst", max(apart) < PARITY))
    return rows


def decode(scale: Scale) -> list[Row]:
    """The loader alone: settings, the fastest first, and how busy the JPEG engine was with that."""
    loader = scale.loader()
    trials = tune(loader, scale.trial_seconds)
    with jpeg_engine() as busy:
        best = trial(loader, loader.num_threads, loader.hw_decoder_load, 2 * scale.trial_seconds)
    without = trial(loader, loader.num_threads, 0.0, scale.trial_seconds)
    rows = [scale.row("decode", "fastest setting again", str(best), f">= {DECODE_RATE:,} images/s",
                      best.images_per_s >= DECODE_RATE),
            scale.row("decode", "JPEG engine with it", f"{max(busy)} % busy at most" if busy else "not known", "> 0 %",
                      max(busy) > 0 if busy else None),
            scale.row("decode", "without the engine", str(without))]
    return [*rows, *(scale.row("decode", f"{place}.", str(t)) for place, t in enumerate(trials, start=1))]


@contextmanager
def jpeg_engine() -> Iterator[list[int]]:
    """How busy the JPEG engine is meanwhile, in percent, as nvidia-smi sees it; filled when the block ends."""
    busy: list[int] = []
    command = ["nvidia-smi", "--query-gpu=utilization.jpeg", "--format=csv,noheader,nounits", "-lms", "200"]
    try:
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:  # there is none
        yield busy
        return
    try:
        yield busy
    finally:
        watcher.terminate()
        busy += [int(line) for line in watcher.communicate()[0].split("\n") if line.strip().isdigit()]


def heads(scale: Scale) -> list[Row]:
    """Forward and backward pass of the loss beside others' forms of it; benchmarks/heads.py has them."""
    contenders = ["arcshard", "pytorch-metric-learning", "products"]
    try:
        import pytorch_metric_learning  # noqa: F401
    except ImportError:
        contenders.remove("pytorch-metric-learning")
    classes = min(CLASSES, scale.most_classes)
    words = ["--classes", classes, "--rounds", 2 if scale.on_gpu else 1, "--repeats", 20 if scale.on_gpu else 1,
             "--device", "cuda" if scale.on_gpu else "cpu", "--batches", *scale.head_batches,
             "--contenders", *contenders]
    measured = heads_benchmark.measurements(heads_benchmark.parse_args([str(word) for word in words]))
    rows = []
    for batch in scale.head_batches:
        ms = {name: 1000 * statistics.median(m["seconds"] for m in measured
                                             if (m["batch"], m["contender"]) == (batch, name)) for name in contenders}
        ratio = ms["arcshard"] / ms["products"]
        rows += [scale.row("heads", f"batch {batch}, {classes:,} classes",
                           ", ".join(f"{name} {value:.2f} ms" for name, value in ms.items())),
                 scale.row("heads", f"batch {batch}: arcshard / products", f"{ratio:.2f}", f"<= {HEADS_RATIO}",
                           ratio <= HEADS_RATIO)]
    return rows


def train(scale: Scale) -> list[Row]:
    """A user's run, stopped and continued; then the tests that only a GPU can pass."""
    run = scale.out / "train"
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "train.py", "--config", "configs/demo.yaml", "--data", str(scale.data.absolute()),
               "--out", str(run.absolute()), "--model.weights", "none", "--train.log_every", "5",
               "--train.device", "cuda" if scale.on_gpu else "cpu", "--train.global_batch", str(scale.train_batch),
               "--train.epochs", str(scale.train_steps * scale.train_batch / len(Dataset(scale.data))),
               *scale.train_options]
    stopped, lines = stop_after_lines(command, run)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = read(run)
    goes_on = stopped and done.returncode == 0 and len(after) > lines and all(
        line["loss"] is not None and math.isfinite(line["loss"]) for line in after)
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "-o", "filterwarnings=", "-p", "no:cacheprovider",
                            "tests/test_gpu.py"], cwd=ROOT, capture_output=True, text=True)
    return [scale.row("train", "configs/demo.yaml, stopped and continued",
                      f"stopped after {lines} lines, continued to {len(after)}" if goes_on else last_line(done),
                      "continues", goes_on),
            *memory_rows(after[LINES:], scale),
            scale.row("train", "tests/test_gpu.py", last_line(tests), "all pass", tests.returncode == 0)]


def stop_after_lines(command: list[str], run: Path) -> tuple[bool, int]:
    """Whether SIGTERM ended the command as it should, and how many lines it had logged."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    while process.poll() is None and len(read(run)) < LINES:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    return process.returncode == 128 + signal.SIGTERM and "the same command continues" in said, len(read(run))


def memory_rows(lines: list[dict[str, Any]], scale: Scale) -> list[Row]:
    """How the run's memory grew while it was the same process."""
    rows = []
    for name in ("memory_mb", "cuda_peak_mb"):
        sizes = [line[name] for line in lines if name in line]
        if sizes:
            middle, mark = sizes[len(sizes) // 2], f"<= {GROWTH:g} times" if name == "cuda_peak_mb" else ""
            rows.append(scale.row("train", name, f"{middle:,.0f} half way, {sizes[-1]:,.0f} at the end", mark,
                                  sizes[-1] <= GROWTH * middle))
    return rows


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a command ended with, for a cell of a table."""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return f"exit {done.returncode}: {lines[-1] if lines else ''}"[:160]


PARTS: dict[str, Callable[[Scale], list[Row]]] = {
    "parity": parity, "decode": decode, "step": step, "both": both, "heads": heads, "trace": trace, "train": train}
