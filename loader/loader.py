"""Loader: shards -> uint8 batches on the device, in a planned order.

    positions -> sample ids -> checked bytes (memory map) -> DALI decodes the crops -> resize, flip -> Batch
"""
import itertools
import math
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import cv2
import numpy as np
import torch

from arcshard.console import UserError
from arcshard.fields import check
from loader.augment import View
from loader.mixture import mixed, order_of
from loader.pipeline import HW_DECODER_LOAD, Resources, decode, largest_photo, share_of_cores
from loader.plan import GrowingSize, Plan, evaluation_plan, rank_positions, training_plan
from loader.read import (
    PendingReads,
    WaitForShards,
    already_here,
    collect,
    one_ahead,
    read,
    read_or_replace,
    schedule_of,
    shards_ahead,
)
from loader.streams import IntArray, Selection
from shards import Dataset

# Keys of the fingerprint that say which photos are drawn, not how.
DATA_KEYS = frozenset({"dataset", "split", "num_samples", "selected", "per_class", "balance", "mix", "window",
                       "shards"})
DEVICES = {"cpu": "cpu", "gpu": "gpu", "cuda": "gpu"}


class DeviceWait:
    """How long the device waited for a batch, on its own clock; CUDA only. Make it when the batch is asked for.

    The host's wait shows neither whether the device still had work, nor what it waits for DALI's decoder.
    """

    def __init__(self) -> None:
        self._asked, self._done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._asked.record()

    def done(self) -> None:
        """The batch is there for what the current stream does next."""
        self._done.record()

    def seconds(self) -> float:
        """How long; only once the device has passed both moments: this does not wait for it."""
        return self._asked.elapsed_time(self._done) / 1000


@dataclass
class Batch:
    """One rank's part of a global batch, n samples."""

    images: torch.Tensor
    """uint8 (n, size, size, 3), RGB, on the loader's device."""
    labels: torch.Tensor
    """int64 (n,), -1 for no landmark, on the loader's device."""
    ids: torch.Tensor
    """int64 (n,), rows of the dataset's index, on the CPU."""
    jitter: torch.Tensor
    """float32 (n, 3) or (n, 8), what the training step does to the colors (loader/augment.py, draw_jitter), on the
    loader's device."""
    replaced: int
    """Samples that are corrupt on disk and were replaced by others."""
    wait: float
    """Seconds that the consumer waited for this batch, on the host's clock."""
    device_wait: DeviceWait | None = None
    """On CUDA, how long the device waited."""


class Loader:
    """Iterates batches: endless and shuffled for training, once and in order for evaluation.

    The sequence of training images depends only on dataset, selection, view, size and seed: neither on the number of
    ranks or threads, nor on where an earlier run stopped. The global batch is batch_size × world_size.

    Memory: on a CPU at most (PREFETCH + 2) × batch_size photos, decoded whole, and 100 MB, however many epochs; the
    memory maps of shards and index belong to the page cache (benchmarks/loaders.py --memory).

    Shards of a dataset in object storage are fetched to its cache by threads, ahead of need, and samples are shuffled
    within windows of shards.

    Args:
        dataset: what to read.
        batch_size: samples in a batch of this rank.
        size: side of the square images, pixels; a GrowingSize grows by epoch, in training.
        device: "cpu", or "gpu" or "cuda" for this process's current CUDA device; also as a torch.device.
        seed: chooses the order and every random view.
        rank, world_size: which contiguous part of each global batch is this loader's.
        train: False reads each sample once, with the view's in_evaluation; the last batch may be short.
        rows: which samples to read instead of all, rising; train=False only.
        view: how training images are drawn.
        selection: which photos an epoch of training holds, and how often.
        num_threads: for reading, decoding and resizing; None takes this process's share of the machine's cores.
        hw_decoder_load: share of a batch for the GPU's JPEG engine. Like num_threads, it may change between iterators.
    """

    def __init__(self, dataset: Dataset, *, batch_size: int, size: int | GrowingSize,
                 device: str | torch.device = "cpu", seed: int = 0, rank: int = 0, world_size: int = 1,
                 train: bool = True, rows: range | IntArray | None = None, view: View = View(),
                 selection: Selection = Selection(), num_threads: int | None = None,
                 hw_decoder_load: float = HW_DECODER_LOAD):
        check(isinstance(dataset, Dataset), "dataset", dataset, "give a Dataset, as in Loader(Dataset(path), …)")
        check(isinstance(view, View), "view", view, "give a View")
        check(isinstance(selection, Selection), "selection", selection, "give a Selection")
        check(rows is None or not train and bool((np.diff(rows) > 0).all()), "rows", rows,
              "give rising numbers of samples, with train=False")
        check(str(device) in DEVICES, "device", device, 'give "cpu", or "gpu" for the one of torch.cuda.set_device')
        batch_size, seed = _whole("batch_size", batch_size, 1), _whole("seed", seed)
        rank, world_size = _whole("rank", rank, 0), _whole("world_size", world_size, 1)
        check(rank < world_size, "rank", f"{rank} of {world_size}", "give 0 to world_size - 1")
        if not isinstance(size, GrowingSize):
            size = _whole("size", size, 1)
            size = GrowingSize(size, size, epochs=0)
        self.size = size
        self.dataset = mixed(dataset, selection) if train else dataset
        self.batch_size, self.device = batch_size, DEVICES[str(device)]
        self.seed, self.rank, self.train = seed, rank, train
        self.rows = np.arange(len(dataset)) if rows is None else np.asarray(rows, np.int64)
        self.view = view if train else view.in_evaluation()
        self.stream = order_of(self.dataset, selection if train else Selection(), seed)
        self.num_threads = _whole("num_threads", num_threads or share_of_cores(), 1)
        self.hw_decoder_load = hw_decoder_load
        self.global_batch = batch_size * world_size
        self._schedule, self._turn = schedule_of(dataset, self.stream, train, self.global_batch), rank / world_size
        self.position = 0  # samples handed out, over all ranks
        cv2.setNumThreads(1)  # images are resized in parallel; threads inside one image would only cost

    def __iter__(self) -> Iterator[Batch]:
        # The threads end with the iterator: at its end, on an error, and when the consumer drops it. Those that fetch
        # shards end first, since the planner may be waiting for one.
        with (ThreadPoolExecutor(self.num_threads) as pool, ThreadPoolExecutor(1) as planner,
              shards_ahead(self._schedule, self._turn) as wait_for_shards):
            planned = self.planned(pool, wait_for_shards)
            asked, device_wait = time.perf_counter(), self._device_wait()
            for plan, images in decode(one_ahead(planned, planner), self.resources(), pool, self.view, self.dataset):
                self.position = plan.end
                yield self._batch(plan, images, asked, device_wait)
                asked, device_wait = time.perf_counter(), self._device_wait()

    def planned(self, pool: Executor, wait_for_shards: WaitForShards = already_here
                ) -> Iterator[tuple[Plan, list[Any]]]:
        """The decoder's input: for each batch a plan and its samples' checked bytes.

        Training: endless, from the current position on, which does not change. Evaluation: each sample once.

        Args:
            pool: reads the bytes.
            wait_for_shards: called before a batch is read.
        """
        return self._training(pool, wait_for_shards) if self.train else self._evaluation(pool, wait_for_shards)

    def reads(self, pool: Executor, wait_for_shards: WaitForShards = already_here
              ) -> Iterator[tuple[int, IntArray, IntArray, PendingReads]]:
        """Order and bytes of training batches, before anything is drawn: endless, from the current position on.

        For each batch: first position of its global batch, this rank's positions (n,), rows there (n,), their bytes.
        """
        for start in itertools.count(self.position, self.global_batch):
            positions = rank_positions(start, self.batch_size, self.rank)
            wanted = self.stream.sample_at(positions)
            wait_for_shards(positions, wanted)
            yield start, positions, wanted, read_or_replace(self.dataset, wanted, self.stream, positions, pool)

    def state_dict(self) -> dict[str, Any]:
        """Position in the stream, and what the stream depends on; the same on every rank."""
        return {"position": self.position, "fingerprint": self._fingerprint()}

    def load_state_dict(self, state: dict[str, Any], allow_changed_data: bool = False) -> None:
        """Continue after the last batch that was handed out, with any number of ranks and any batch size.

        Existing iterators are not affected.

        allow_changed_data: dataset, split and selection may differ; the stream is then theirs, from the same number of
        images on.

        Raises UserError if the state belongs to another dataset, split, selection, seed, size or view.
        """
        # what came after the version that wrote the state is at its default, as it ran
        theirs, ours = {**_plain(View()), **state["fingerprint"]}, self._fingerprint()
        changed = {k: f"{k} was {theirs.get(k)!r} and is {ours.get(k)!r}" for k in {**theirs, **ours}
                   if theirs.get(k) != ours.get(k) and not (allow_changed_data and k in DATA_KEYS)}
        if changed:
            way_out = ", or allow it with --allow-changed-data" if changed.keys() <= DATA_KEYS else ""
            raise UserError(f"a run cannot continue with other data or views than it began with: "
                            f"{'; '.join(changed.values())}; give the old ones, or start a new run{way_out}")
        self.position = state["position"]

    def resources(self) -> Resources:
        """What this loader's pipelines run on."""
        if self.device == "cpu":
            return Resources("cpu", self.batch_size, self.num_threads)
        return Resources("gpu", self.batch_size, self.num_threads, self.hw_decoder_load,
                         largest_photo(self.dataset, self.batch_size), torch.cuda.current_device())

    def _fingerprint(self) -> dict[str, Any]:
        return {"dataset": self.dataset.fingerprint, "split": self.dataset.split, "num_samples": self.stream.epoch_size,
                "seed": self.seed, "size": self.size.last, "first_size": self.size.first,
                "size_epochs": self.size.epochs, **self.stream.fingerprint(), **_plain(self.view)}

    def _training(self, pool: Executor, wait_for_shards: WaitForShards) -> Iterator[tuple[Plan, list[Any]]]:
        for start, positions, wanted, pending in self.reads(pool, wait_for_shards):
            data, ids = collect(pending)
            yield training_plan(self.dataset.index[ids], self.view, self.seed, positions, ids,
                                start + self.global_batch, self.size.at(start / self.stream.epoch_size),
                                int((ids != wanted).sum())), data

    def _evaluation(self, pool: Executor, wait_for_shards: WaitForShards) -> Iterator[tuple[Plan, list[Any]]]:
        """Each sample once over all ranks, in order; a rank with no part in the last global batch stops before it."""
        for start, ids, pending in self._evaluation_reads(pool, wait_for_shards):
            data, _ = collect(pending)
            yield evaluation_plan(self.dataset.index[ids], self.view, ids, start + self.global_batch,
                                  self.size.last), data

    def _evaluation_reads(self, pool: Executor, wait_for_shards: WaitForShards
                          ) -> Iterator[tuple[int, IntArray, PendingReads]]:
        for start in range(0, len(self.rows), self.global_batch):
            places = rank_positions(start, self.batch_size, self.rank)
            ids = self.rows[places[places < len(self.rows)]]
            if len(ids):
                wait_for_shards(ids, ids)
                yield start, ids, read(self.dataset, ids, pool)

    def _device_wait(self) -> DeviceWait | None:
        return DeviceWait() if self.device == "gpu" else None

    def _batch(self, plan: Plan, images: torch.Tensor, asked: float, device_wait: DeviceWait | None) -> Batch:
        labels = torch.from_numpy(self.dataset.labels[plan.ids].astype(np.int64)).to(images.device, non_blocking=True)
        jitter = torch.from_numpy(plan.jitter).to(images.device, non_blocking=True)
        if device_wait:
            device_wait.done()
        return Batch(images, labels, torch.from_numpy(plan.ids), jitter, plan.replaced, time.perf_counter() - asked,
                     device_wait)


def _whole(name: str, value: Any, least: float = -math.inf) -> int:
    """The value as an int, NumPy's too. Raises ValueError for other types, and below `least`."""
    fits = isinstance(value, Integral) and int(value) >= least
    check(fits, name, value, "give a whole number" + (f" from {least} on" if least >= 0 else ""))
    return int(value)


def _plain(view: View) -> dict[str, Any]:
    """Its fields as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(view).items()}
