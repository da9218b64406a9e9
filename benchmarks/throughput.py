"""How fast each part between disk and network is on this machine and dataset, and which one sets the pace.

    python benchmarks/throughput.py --data data/demo/dataset [--size 224] [--json FILE] [--picture FILE.svg]
    torchrun --nproc-per-node 2 benchmarks/throughput.py --data …         rates are then of all ranks together

Several rounds of these parts in turn; the first batch of each is not timed:
  read     the planned order, the samples' bytes and their crc32 (from the page cache if the shards fit into it)
  decode   the crops of batches that are already read: DALI alone; on a GPU with resize and flip
  loader   this project's Loader with its default training view
  dali     DALI's own webdataset reader on the same shards: image_random_crop, resize, crop_mirror_normalize
  step     train.py's own update of --backbone (random weights) with an ArcFace head, clip and averaged weights, on one
           cached batch
  both     loader and step together, once the prefetched batches are used up, and the share of the time that the
           step waited for the loader (on a GPU: that the device waited)
The speed of a machine drifts, so ratios are taken within a round; the figure is their median over rounds.
"""
import argparse
import io
import itertools
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from machine import listed, machine, median_range
from matplotlib.figure import Figure
from nvidia.dali import fn, pipeline_def, types
from updates import IN_FLIGHT, SCHEDULE, Updates, synchronize, waited

from arcshard import distributed
from arcshard.console import Parser, check_least, progress, run
from arcshard.distributed import World
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from loader import Batch, Loader, View
from loader.pipeline import build_pipeline, input_specs, inputs
from loader.plan import Plan
from loader.read import collect
from shards import Dataset
from training.config import TrainConfig


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    world = distributed.start("auto")
    try:
        report = measured(args, world)
    finally:
        distributed.stop()
    if world.is_main:
        print(text(report))
        if args.json:
            write_text(args.json, json.dumps(report, indent=2) + "\n")
        if args.picture:
            write_text(args.picture, picture(report))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels (default: 224)")
    parser.add_argument("--batch-size", type=int, default=64, help="of each rank (default: 64)")
    parser.add_argument("--batches", type=int, default=16, help="batches a round (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--num-threads", type=int, help="of both loaders (default: this rank's share of the cores)")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm model of the step")
    parser.add_argument("--json", type=Path, help="also write every round's figures here")
    parser.add_argument("--picture", type=Path, help="also draw the rates, an SVG")
    args = parser.parse_args()
    check_least(args, 1, "size", "batch_size", "batches", "rounds")
    return args


def measured(args: argparse.Namespace, world: World) -> dict[str, Any]:
    """Every round's rates over all ranks, with what they depend on."""
    parts = Parts(Dataset(args.data, "train"), args, world)
    rounds = [parts.rates() for _ in progress(range(args.rounds), unit="round", what="measure",
                                              disable=not world.is_main)]
    settings = {"size": args.size, "batch_size": args.batch_size, "ranks": world.size, "num_threads": parts.threads,
                "images_a_round": args.batches * args.batch_size * world.size, "backbone": args.backbone,
                "samples": len(parts.dataset)}
    gpu = torch.cuda.get_device_name() if world.device.type == "cuda" else None
    return {"machine": machine(PACKAGES) | {"gpu": gpu}, "settings": settings,
            "classes_a_batch": parts.classes_a_batch(), "rounds": rounds}


# The parts between disk and network, each as a stream of batches, and a clock around them.

Read = tuple[Plan, list[Any]]  # a plan and its samples' bytes


class Parts:
    """All parts, warm, for one rank."""

    def __init__(self, dataset: Dataset, args: argparse.Namespace, world: World):
        self.dataset, self.args, self.world = dataset, args, world
        self.device = "gpu" if world.device.type == "cuda" else "cpu"
        self.threads = args.num_threads or cores_a_rank()
        self.pool = ThreadPoolExecutor(self.threads)
        self.sources: dict[str, Iterator[Any]] = {"read": self.reads(), "loader": iter(self.loader())}
        self.plans = self.loader().planned(self.pool)
        self.sources["decode"] = self.decoded(list(islice(self.plans, 4)))
        self.sources["dali"] = native(dataset, args, self.device, self.threads, world)
        images = args.batch_size * world.size
        c = TrainConfig(global_batch=images, ema=float(len(dataset)),
                        compile="always" if self.device == "gpu" else "never")
        self.step = Updates(args.backbone, dataset.num_classes, next(self.sources["loader"]), c, world)

    def loader(self) -> Loader:
        return Loader(self.dataset, batch_size=self.args.batch_size, size=self.args.size, device=self.device,
                      num_threads=self.threads, rank=self.world.rank, world_size=self.world.size)

    def reads(self) -> Iterator[Any]:
        """Order and read alone."""
        for *_, found in self.loader().reads(self.pool):
            yield collect(found)

    def decoded(self, batches: list[Read]) -> Iterator[Any]:
        """The same few batches over and over, through the DALI graph alone."""
        fed = itertools.cycle([inputs(plan, data, input_specs(self.device, View())) for plan, data in batches])
        pipeline = build_pipeline(lambda: next(fed), self.loader().resources(), View())
        pipeline.build()
        while True:
            yield pipeline.run()

    def rates(self) -> dict[str, float]:
        """Images a second of each part, over all ranks; a batch is taken and a step done before each clock starts."""
        rates, count = {}, self.args.batches
        for name, source in self.sources.items():
            next(source)
            rates[name] = self.rate(partial(take, source, count))
        batches = self.sources["loader"]
        cached = next(batches)
        self.step(cached)
        rates["step"] = self.rate(lambda: take(map(self.step, [cached] * count), count))
        for batch in islice(batches, IN_FLIGHT):
            self.step(batch)
        seen: list[Batch] = []
        rates["both"] = self.rate(lambda: seen.extend(self.step.on(islice(batches, count))))
        share = waited(seen) * rates["both"] / (count * self.args.batch_size * self.world.size)
        return {**rates, "wait_share": self.world.sum(share)[0] / self.world.size}

    def rate(self, work: Callable[[], Any]) -> float:
        """Of --batches in `work`. All ranks begin together; the slowest counts."""
        self.world.sum(0)
        synchronize()
        began = time.perf_counter()
        work()
        synchronize()
        self.world.sum(0)
        return self.args.batches * self.args.batch_size * self.world.size / (time.perf_counter() - began)

    def classes_a_batch(self) -> dict[str, float]:
        """Distinct classes in a rank's batch: seen in 64 batches, and expected of a random permutation."""
        labels = self.dataset.labels
        seen = [len(np.unique(labels[plan.ids])) for plan, _ in islice(self.plans, 64)]
        counts = np.unique(labels, return_counts=True)[1]
        return {"seen": float(np.mean(seen)), "expected": expected_classes(counts, self.args.batch_size)}


def expected_classes(counts: np.ndarray, batch_size: int) -> float:
    """Distinct classes among `batch_size` samples drawn without return, of classes of `counts` (C,) samples."""
    total, sizes = int(counts.sum()), np.unique(counts, return_counts=True)
    missing = {int(n): log_choose(total - int(n), batch_size) - log_choose(total, batch_size) for n in sizes[0]}
    return float(sum(times * (1 - math.exp(missing[int(n)])) for n, times in zip(*sizes)))


def log_choose(n: int, k: int) -> float:
    """Logarithm of the binomial coefficient, -inf for k > n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) if k <= n else -math.inf


def native(dataset: Dataset, args: argparse.Namespace, device: str, threads: int, world: World) -> Iterator[Any]:
    """What DALI's documentation would have a user write."""
    tars = sorted(str(path) for path in Path(dataset.path).glob("train-*.tar"))

    @pipeline_def(batch_size=args.batch_size, num_threads=threads,
                  device_id=torch.cuda.current_device() if device == "gpu" else None)
    def graph() -> Any:
        encoded, label = fn.readers.webdataset(  # type: ignore[misc]
            paths=tars, index_paths=[tar[:-3] + "idx" for tar in tars], ext=["jpg", "cls"], random_shuffle=True,
            initial_fill=1024, missing_component_behavior="error", shard_id=world.rank, num_shards=world.size)
        images = fn.decoders.image_random_crop(encoded, device="mixed" if device == "gpu" else "cpu",
                                               random_area=[0.1, 1.0], random_aspect_ratio=[3 / 4, 4 / 3])
        images = fn.resize(images, size=(args.size, args.size), interp_type=types.INTERP_LINEAR)
        return fn.crop_mirror_normalize(images, mirror=fn.random.coin_flip(), mean=[127.5] * 3, std=[127.5] * 3), label

    pipeline = graph()
    pipeline.build()
    while True:
        yield pipeline.run()


def take(source: Iterator[Any], count: int) -> None:
    deque(islice(source, count), maxlen=0)


def cores_a_rank() -> int:
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


# The report: rates, the verdict, what a schedule would take, a picture.

PACKAGES = ("torch", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "opencv-python-headless", "timm")
PARTS = {"read": "order and read", "decode": "decode of crops", "loader": "whole loader", "dali": "DALI's own reader",
         "step": "training step", "both": "loader and step"}
BOUND = 0.95  # of its own rate that a step keeps which only computing limits
BLUE, GRAY, INK = "#0b5cad", "#9aa4b0", "#24292f"


def text(report: dict[str, Any]) -> str:
    """The figures as a person reads them: median (least to most) of the rounds."""
    rounds, classes = report["rounds"], report["classes_a_batch"]
    lines = [listed(report["machine"]), listed(report["settings"])]
    lines += [f"{label:18}{rate_text(r[name] for r in rounds)} images/s" for name, label in PARTS.items()]
    lines.append(f"{'both / step':18}{median_range([r['both'] / r['step'] for r in rounds], '.3f')}")
    lines.append(f"{'loader / DALI':18}{median_range([r['loader'] / r['dali'] for r in rounds], '.2f')}")
    wait_share = median_range([r["wait_share"] for r in rounds], ".2%")
    lines.append(f"{'wait share':18}{wait_share} of the time of loader and step")
    lines.append(f"{'classes a batch':18}{classes['seen']:.1f}, of a random permutation {classes['expected']:.1f}")
    return "\n".join([*lines, verdict(rounds), schedule(rounds)])


def rate_text(values: Iterable[float]) -> str:
    """Images/s; with decimals where a large network takes few."""
    listed = list(values)
    return median_range(listed, ",.0f" if min(listed) >= 10 else ".2f")


def verdict(rounds: list[dict[str, float]]) -> str:
    """Which part sets the pace, judged by what the step loses to the loader beside it."""
    together = statistics.median(r["both"] / r["step"] for r in rounds)
    pace = statistics.median(r["loader"] / r["step"] for r in rounds)
    reached = f"with the loader beside it the step reaches {together:.0%} of its own rate"
    if pace < 1:
        slow = min(("read", "decode"), key=lambda name: statistics.median(r[name] for r in rounds))
        return (f"{slow}-bound: {reached}; it could take {1 / pace:.1f} times what the loader gives, whose slowest "
                f"part is the {PARTS[slow]}")
    return (f"{'compute' if together >= BOUND else 'processor'}-bound: {reached}; the loader alone could feed "
            f"{pace:.1f} such networks" + ("" if together >= BOUND else ", but not on the same cores"))


def schedule(rounds: list[dict[str, float]]) -> str:
    """What ten epochs of Google Landmarks would take at the rate of loader and step together."""
    hours = SCHEDULE / statistics.median(r["both"] for r in rounds) / 3600
    return f"10 epochs of 1,223,195 images with this network would take {hours:,.1f} hours here"


def picture(report: dict[str, Any]) -> str:
    """Rates as bars, least and most as whiskers, the network's as a line that the others should pass: SVG."""
    rates = {label: [r[name] for r in report["rounds"]] for name, label in PARTS.items()}
    middle = [statistics.median(values) for values in rates.values()]
    below = [m - min(values) for m, values in zip(middle, rates.values())]
    above = [max(values) - m for m, values in zip(middle, rates.values())]
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(rates), middle, xerr=[below, above], ecolor=INK, capsize=3,
                  color=[GRAY if label == PARTS["dali"] else BLUE for label in rates])
        axes.axvline(statistics.median(rates[PARTS["step"]]), color=INK, linestyle="--", linewidth=1)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(left=min(middle) / 3)
        axes.set_xlabel("images/s; the dashed line is what the network can take")
        axes.spines[["top", "right"]].set_visible(False)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


if __name__ == "__main__":
    run(main)
