"""Everything that only a GPU can show, in one command of at most 15 minutes.

    python benchmarks/gpu.py --data data/demo/short288 --out runs/gpu           a dataset of short side 288
    python benchmarks/gpu.py --data … --parts step --variants eager tf32        some of it
    python benchmarks/gpu.py --data … --dry-run                                 every part at tiny sizes on a CPU

Parts, each in a process of its own with a time limit, so that a failing part does not stop the others:
  parity  the GPU's loader beside the CPU's: each framing, warp and JPEG
  decode  the loader alone, by threads and by the JPEG engine's share
  step    train.py's own update of --backbone by itself, in each of --variants, and its head
  both    loader and step together, and what the device waited; hours of a whole schedule
  heads   the loss over many classes beside pytorch-metric-learning and its three matrix products
  trace   a profile of 8 steps: the slowest kernels, waits and copies
  train   configs/demo.yaml until SIGTERM, then continued; tests/test_gpu.py

Ends with a table: what was found, what is expected of one H100, and whether that was met. Writes gpu.json, gpu.md and
trace.json.gz. Exit codes: 0 all marks met, 1 one missed or a part failed, 2 wrong arguments.
"""
import argparse
import json
import os
import signal
import time
import traceback
from contextlib import suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from gpu_parts import PARTS
from gpu_scale import Row, Scale, markdown, table
from gpu_step import VARIANTS
from machine import machine

from arcshard.console import Parser, UserError, check_least, run
from arcshard.files import report_full_disk, write_text
from arcshard.memory import keep_freed_memory
from shards import Dataset

PACKAGES = ("torch", "triton", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "nvidia-cudnn-cu13", "timm",
            "opencv-python-headless", "pytorch-metric-learning")


def main() -> int:
    args = parse_args()
    scale = Scale.tiny(args) if args.dry_run else Scale.full(args)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the part that runs must not outlive this
    args.out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = about_machine() | scale.facts()
    rows: list[Row] = []
    save(args.out, about, rows)  # a folder that cannot be written to shows now
    for name in args.parts:
        began = time.perf_counter()
        found = in_a_process(name, scale, args.limit, fork=not torch.cuda.is_available())
        rows += found
        print(f"\n{name}: {time.perf_counter() - began:.0f} s\n{table(found)}", flush=True)
        save(args.out, about, rows)
    print(f"\n{table(rows)}\n\n{args.out / 'gpu.md'} has this table, {args.out / 'gpu.json'} every figure")
    return int(any(row.met is False for row in rows))


def save(out: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """Write what was found so far."""
    with report_full_disk(out):
        found = {"about": about, "rows": [row._asdict() for row in rows]}
        write_text(out / "gpu.json", json.dumps(found, indent=1) + "\n")
        write_text(out / "gpu.md", markdown(about, rows))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder, packed with --short-side 288")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="folder to write to (default: runs/gpu)")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), help="of the step (default: %(default)s)",
                        default=["compiled", "eager", "203094-classes"])
    parser.add_argument("--backbone", default="resnet50", help="timm model of the step (default: resnet50)")
    parser.add_argument("--batch-size", type=int, default=256, help="default: 256")
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels (default: 224)")
    parser.add_argument("--limit", type=float, default=420, help="seconds that a part may take (default: 420)")
    parser.add_argument("--dry-run", action="store_true", help="run every part at tiny sizes on a CPU")
    args = parser.parse_args()
    check_least(args, 1, "batch_size", "size", "limit")
    Dataset(args.data, "train")  # raises UserError before the first part takes its minutes
    if not args.dry_run and not torch.cuda.is_available():
        raise UserError("torch finds no GPU to use: --dry-run runs every part on the CPU")
    return args


def about_machine() -> dict[str, Any]:
    """The card, its driver and the versions of what runs on it."""
    about = machine(PACKAGES)
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        about |= {"gpu": card.name, "gpu_memory": f"{card.total_memory / 2**30:.0f} GiB", "cuda": torch.version.cuda}
    return about


def in_a_process(name: str, scale: Scale, limit: float, fork: bool = False) -> list[Row]:
    """The rows of a part; one that says so if it failed or took too long.

    fork: as this process has all imports, a part starts 5 s sooner, but cannot use CUDA.
    """
    ours, theirs = Pipe(duplex=False)
    process = get_context("fork").Process if fork else get_context("spawn").Process
    child = process(target=measure, args=(theirs, name, scale))
    child.start()
    theirs.close()
    try:
        found: list[Row] | str = ours.recv() if ours.poll(limit) else f"took more than {limit:.0f} s"
    except EOFError:
        child.join()
        found = f"its process ended with code {child.exitcode}"
    finally:  # whatever ended it, also Ctrl-C: nothing that the part started stays
        assert child.pid
        with suppress(ProcessLookupError):  # it has not come so far as to lead a group, or is gone with all it started
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()
        child.join()
    return found if isinstance(found, list) else [Row(name, "the whole part", found, "ends", False)]


def measure(answer: Connection, name: str, scale: Scale) -> None:
    os.setsid()  # a process group, which ends as one
    keep_freed_memory()
    if not scale.on_gpu:
        torch.compiler.set_stance("force_eager")  # compiling for a CPU takes minutes and shows nothing here
    try:
        answer.send(PARTS[name](scale))
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        answer.send(f"{type(error).__name__}: {' '.join(str(error).split())}"[:300])


if __name__ == "__main__":
    run(main)
