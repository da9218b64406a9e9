"""The parts between disk and network, each as a stream of batches, and a clock around them."""
import argparse
import itertools
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from updates import IN_FLIGHT, Updates, waited

from arcshard.distributed import World
from loader import Batch, Loader, View
from loader.pipeline import build_pipeline, input_specs, inputs
from loader.plan import Plan
from loader.read import collect
from shards import Dataset
from training.config import TrainConfig

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

        def both() -> None:
            for batch in islice(batches, count):
                self.step(batch)
                batch.images = cached.images  # so that those seen take no memory
                seen.append(batch)

        rates["both"] = self.rate(both)
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


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cores_a_rank() -> int:
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
