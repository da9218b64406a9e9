"""How fast the loader is, and whether it or the network sets the pace.

python benchmarks/throughput.py --data data/demo/dataset [--size 224] [--json FILE]

In turn, several rounds of:
  loader   this project's Loader with its default training view
  dali     DALI's own webdataset reader on the same shards: image_random_crop, resize, crop_mirror_normalize
  step     forward and backward of --backbone (random weights) on one cached batch
  both     loader and step together, and the share of the time that the step waited for the loader
Machines drift, so compare the rates of one round: the ratios are medians over rounds.
"""
import argparse
import json
import os
import platform
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types

from arcshard.console import Parser, UserError, run
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from loader import Batch, Loader
from model import ModelConfig, build_embedder
from shards import Dataset

PACKAGES = ("torch", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "opencv-python-headless", "timm")


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    device = "gpu" if torch.cuda.is_available() else "cpu"
    dataset = Dataset(args.data, "train")
    threads = args.num_threads or len(os.sched_getaffinity(0))
    measures = [("loader", loader_source(dataset, args, device, threads)),
                ("dali", native_source(args.data, args, device, threads))]
    step = training_step(args, device)
    rounds = [measure(measures, step, args) for _ in range(args.rounds)]
    report = {"machine": machine(device), "settings": {
        "size": args.size, "batch_size": args.batch_size, "num_threads": threads, "images_a_round":
        args.batches * args.batch_size, "backbone": args.backbone, "samples": len(dataset)}, "rounds": rounds}
    print(text(report))
    if args.json:
        write_text(args.json, json.dumps(report, indent=2) + "\n")


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels (default: 224)")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--batches", type=int, default=16, help="batches a round (default: 16)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--num-threads", type=int, help="of both loaders (default: all cores)")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm model of the step")
    parser.add_argument("--json", type=Path, help="also write every round's figures here")
    args = parser.parse_args()
    for name in ("size", "batch_size", "batches", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(args, name)}")
    return args


def loader_source(dataset: Dataset, args: argparse.Namespace, device: str, threads: int) -> Iterator[Batch]:
    return iter(Loader(dataset, batch_size=args.batch_size, size=args.size, device=device, num_threads=threads))


def native_source(data: Path, args: argparse.Namespace, device: str, threads: int) -> Iterator[Any]:
    """What DALI's documentation would have a user write."""
    tars = sorted(str(path) for path in data.glob("train-*.tar"))

    @pipeline_def(batch_size=args.batch_size, num_threads=threads, device_id=0 if device == "gpu" else None)
    def graph() -> Any:
        encoded, label = fn.readers.webdataset(  # type: ignore[misc]
            paths=tars, index_paths=[tar[:-3] + "idx" for tar in tars], ext=["jpg", "cls"], random_shuffle=True,
            initial_fill=1024, missing_component_behavior="error")
        images = fn.decoders.image_random_crop(encoded, device="mixed" if device == "gpu" else "cpu",
                                               random_area=[0.1, 1.0], random_aspect_ratio=[3 / 4, 4 / 3])
        images = fn.resize(images, size=(args.size, args.size), interp_type=types.INTERP_LINEAR)
        return fn.crop_mirror_normalize(images, mirror=fn.random.coin_flip(), mean=[127.5] * 3, std=[127.5] * 3), label

    pipeline = graph()
    pipeline.build()
    while True:
        yield pipeline.run()


def training_step(args: argparse.Namespace, device: str) -> Callable[[Batch], None]:
    embedder = build_embedder(ModelConfig(backbone=args.backbone, weights="none"))
    embedder.to("cuda" if device == "gpu" else "cpu")

    def step(batch: Batch) -> None:
        with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=device == "gpu"):
            loss = embedder(batch.images, batch.jitter).square().mean()
        loss.backward()
        embedder.zero_grad(set_to_none=True)

    return step


def measure(sources: list[tuple[str, Iterator[Any]]], step: Callable[[Batch], None], args: argparse.Namespace
            ) -> dict[str, float]:
    """Images a second of each part in this round; a batch is taken and a step done before each clock starts."""
    rates, images = {}, args.batches * args.batch_size
    for name, source in sources:
        next(source)
        rates[name] = images / seconds(lambda: sum(1 for _ in islice(source, args.batches)))
    loader = sources[0][1]
    cached = next(loader)
    step(cached)
    few = max(1, args.batches // 4)  # the network is the slow part on a CPU
    rates["step"] = few * args.batch_size / seconds(lambda: deque(map(step, [cached] * few)))
    waits: list[float] = []

    def both() -> None:
        for batch in islice(loader, few):
            waits.append(batch.wait)
            step(batch)

    taken = seconds(both)
    return {**rates, "both": few * args.batch_size / taken, "wait_share": sum(waits) / taken}


def seconds(work: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def machine(device: str) -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return {"processor": names[0] if names else platform.machine(), "cores": len(os.sched_getaffinity(0)),
            "gpu": torch.cuda.get_device_name() if device == "gpu" else None, "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES if _installed(package)}}


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except ImportError:
        return False


def text(report: dict[str, Any]) -> str:
    """The figures as a person reads them: median (least to most) of the rounds."""
    rounds, lines = report["rounds"], [", ".join(f"{k} {v}" for k, v in report["machine"].items() if v)]
    lines.append(", ".join(f"{k} {v}" for k, v in report["settings"].items()))
    for name in ("loader", "dali", "step", "both"):
        lines.append(f"{name:12}{spread([r[name] for r in rounds], ',.0f')} images/s")
    lines.append(f"{'loader/dali':12}{spread([r['loader'] / r['dali'] for r in rounds], '.2f')}")
    lines.append(f"{'wait share':12}{spread([r['wait_share'] for r in rounds], '.3f')} of the time of both")
    pace = statistics.median(r["loader"] / r["step"] for r in rounds)
    verdict = "compute-bound" if pace > 1 else "loader-bound"
    lines.append(f"the loader could feed {pace:.1f} such networks: {verdict}")
    return "\n".join(lines)


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}}, n = {len(values)})"


if __name__ == "__main__":
    run(main)
