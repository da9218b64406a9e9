"""Time and memory of the loss over many classes: this project's head beside the forms that others use.

    pip install --no-deps pytorch-metric-learning
    python benchmarks/heads.py [--classes 81313] [--batches 64 256 1024] [--rounds 5] [--device cpu]
    python benchmarks/heads.py --classes 203094 --centers 3 --batches 64 256   (sub-centers, of those who know them)

Each measurement is a process of its own: embeddings (B, 512), an ArcFace loss of C classes, forward and backward, the
median of a few after some to warm up. Peak memory is the process's (CPU) or the allocator's (CUDA). All contenders of a
round follow each other, so the ratios are those of one moment. `products` is the floor: the three matrix products that
every form needs, and nothing else.
"""
import argparse
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import listed, machine, median_range
from torch import Tensor

from arcshard.console import Parser, UserError, progress, run
from arcshard.files import write_text
from model import ArcFace

DIM, SCALE, MARGIN = 512, 45.0, 0.3
WARM_UP = {"cpu": 1, "cuda": 5}  # steps; a GPU also has its clocks to raise
PACKAGES = ("torch", "pytorch-metric-learning")
Step = Callable[[], Any]  # forward and backward


def main() -> None:
    args = parse_args()
    rows = measurements(args)
    print(report(rows, args))
    if args.json:
        write_text(args.json, json.dumps({"machine": machine_of(args), "rows": rows}, indent=1) + "\n")


def parse_args(words: Sequence[str] | None = None) -> argparse.Namespace:
    """From these words, or from the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--classes", type=int, default=81_313, help="default: 81313, those of Google Landmarks clean")
    parser.add_argument("--centers", type=int, default=1, help="centers a class; default: 1")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024], help="default: 64 256 1024")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--repeats", type=int, default=3, help="steps of which a measurement is the median; default: 3")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--json", type=Path, help="also write the measurements here")
    args = parser.parse_args(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("torch finds no GPU to use: leave out --device cuda")
    return args


def measurements(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each; args: of `parse_args`."""
    rows = []
    plan = [(number, batch, name) for number in range(args.rounds) for batch in args.batches for name in chosen(args)]
    for number, batch, name in progress(plan, unit="measurement", what="heads"):
        seconds, peak = in_a_process(name, args.classes, args.centers, batch, args.repeats, args.device)
        rows.append({"round": number, "batch": batch, "contender": name, "seconds": seconds, "peak_bytes": peak})
    return rows


def in_a_process(*given: Any) -> tuple[float, int]:
    """Seconds a step and peak bytes, of a fresh process."""
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("spawn").Process(target=measure, args=(theirs, *given))
    child.start()
    theirs.close()
    try:
        found: tuple[float, int] = ours.recv()
    except EOFError:
        raise UserError(f"the measurement of {given[0]} ended without a result: see the messages above") from None
    child.join()
    return found


def measure(answer: Connection, name: str, classes: int, centers: int, batch: int, repeats: int, device: str) -> None:
    torch.manual_seed(0)
    step, on_gpu, seconds = contenders(centers)[name](classes, batch, torch.device(device)), device == "cuda", []
    for _ in range(WARM_UP[device]):
        step()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    answer.send((statistics.median(seconds), torch.cuda.max_memory_allocated() if on_gpu else peak()))


def peak() -> int:
    """Highest resident bytes of this process; unlike getrusage's, without what it shared before exec."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def stepper(loss: Callable[[Tensor, Tensor], Tensor], parameters: list[Tensor], batch: int, classes: int) -> Step:
    x = torch.randn(batch, DIM, device=parameters[0].device, requires_grad=True)
    labels = torch.randint(classes, (batch,), device=x.device)

    def step() -> None:
        for tensor in (x, *parameters):
            tensor.grad = None
        loss(x, labels).backward()

    return step


def arcshard_head(classes: int, batch: int, device: torch.device, centers: int = 1) -> Step:
    head = ArcFace(DIM, classes, SCALE, MARGIN, centers).to(device)
    return stepper(head, list(head.parameters()), batch, classes)


def plain(classes: int, batch: int, device: torch.device) -> Step:
    """All logits, by autograd: sin from cos, as in the 1st place 2020."""
    weight = torch.randn(classes, DIM, device=device, requires_grad=True)

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        cos = F.linear(F.normalize(x), F.normalize(weight))
        turned = cos * math.cos(MARGIN) - (1 - cos.square()).clamp(0, 1).sqrt() * math.sin(MARGIN)
        turned = torch.where(cos > -math.cos(MARGIN), turned, cos - math.sin(MARGIN) * MARGIN)
        mine = F.one_hot(labels, classes).bool()
        return F.cross_entropy(SCALE * torch.where(mine, turned, cos), labels)

    return stepper(loss, [weight], batch, classes)


def straight_through(classes: int, batch: int, device: torch.device) -> Step:
    """The formula of insightface's arcface_torch/losses.py: the margin changes the value and not the gradient."""
    weight = torch.randn(classes, DIM, device=device, requires_grad=True)

    def loss(x: Tensor, labels: Tensor) -> Tensor:
        cos = F.linear(F.normalize(x), F.normalize(weight)).clamp(-1, 1)
        with torch.no_grad():
            rows = torch.arange(len(x), device=x.device)
            cos[rows, labels] = (cos[rows, labels].arccos() + MARGIN).cos()
        return F.cross_entropy(SCALE * cos, labels)

    return stepper(loss, [weight], batch, classes)


def metric_learning(classes: int, batch: int, device: torch.device, centers: int = 1) -> Step:
    try:
        from pytorch_metric_learning.losses import ArcFaceLoss, SubCenterArcFaceLoss
    except ImportError:
        raise SystemExit("pytorch-metric-learning is missing: pip install --no-deps pytorch-metric-learning") from None
    options = {"num_classes": classes, "embedding_size": DIM, "margin": math.degrees(MARGIN), "scale": SCALE}
    loss = ArcFaceLoss(**options) if centers == 1 else SubCenterArcFaceLoss(**options, sub_centers=centers)
    loss = loss.to(device)
    return stepper(loss, list(loss.parameters()), batch, classes)


def products(classes: int, batch: int, device: torch.device, centers: int = 1) -> Step:
    x, weight = torch.randn(batch, DIM, device=device), torch.randn(classes * centers, DIM, device=device)

    def step() -> tuple[Tensor, Tensor]:
        logits = x @ weight.T
        return logits @ weight, logits.T @ x

    return step


CONTENDERS: dict[str, Callable[..., Step]] = {
    "arcshard": arcshard_head, "pytorch-metric-learning": metric_learning, "plain": plain,
    "straight-through": straight_through, "products": products}
SUB_CENTERS = ("arcshard", "pytorch-metric-learning", "products")


def contenders(centers: int) -> dict[str, Callable[[int, int, torch.device], Step]]:
    """Those who know so many centers a class."""
    if centers == 1:
        return CONTENDERS
    return {name: partial(CONTENDERS[name], centers=centers) for name in SUB_CENTERS}


def chosen(args: argparse.Namespace) -> list[str]:
    """Those of --contenders who know so many centers a class."""
    return [name for name in contenders(args.centers) if name in args.contenders]


def machine_of(args: argparse.Namespace) -> dict[str, Any]:
    return machine(PACKAGES) | {"gpu": torch.cuda.get_device_name() if args.device == "cuda" else None}


def report(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """What the rows of `measurements` say, in lines."""
    lines = [listed(machine_of(args)), f"{args.classes:,} classes, centers {args.centers}, {DIM} dimensions, "
             f"{args.device}; medians of rounds"]
    for batch in args.batches:
        times = {name: [row["seconds"] for row in rows if (row["batch"], row["contender"]) == (batch, name)]
                 for name in chosen(args)}
        for name, seconds in times.items():
            line = f"batch {batch:5}  {name:24} {1000 * statistics.median(seconds):9.2f} ms"
            if name != "arcshard" and "arcshard" in times:
                ratio = median_range([mine / theirs for mine, theirs in zip(times["arcshard"], seconds)], ".2f")
                line += f"   arcshard takes {ratio} of it"
            lines.append(line)
    least, most = min(args.batches), max(args.batches)
    for name in chosen(args) if most > least else ():
        peaks = {batch: statistics.median(row["peak_bytes"] for row in rows
                                          if (row["batch"], row["contender"]) == (batch, name))
                 for batch in (least, most)}
        matrix = 4 * most * args.classes * args.centers
        lines.append(f"peak {name:24} {peaks[least] / 1e6:7,.0f} MB at batch {least}, {peaks[most] / 1e6:7,.0f} "
                     f"at {most}: grows by {(peaks[most] - peaks[least]) / matrix:.2f} of one float32 matrix of logits")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
