"""The loader's threads and its share of the GPU's JPEG engine: given, or found by measuring."""
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from arcshard.fields import check
from loader.loader import Loader
from loader.pipeline import HW_DECODER_LOAD, share_of_cores

WARM_UP = 3  # batches: a new pipeline's first ones allocate
SECONDS = 3.0  # of a trial, and at least one batch
LOADS = (0.65, 0.8, 0.99)  # besides the default: DALI's, MLPerf's, and one between (see HW_DECODER_LOAD)


@dataclass(frozen=True)
class LoaderConfig:
    """What the loader runs on; nothing here changes what training sees."""

    num_threads: int | None = None
    """Threads of each rank; null: its share of the cores."""
    hw_decoder_load: float = HW_DECODER_LOAD
    """Share of each batch for the JPEG engine of A100 and H100; CPU threads and the GPU's cores decode the rest."""
    tune: bool = False
    """Measure other values of both at the start, for 3 seconds each, and use the fastest."""

    def __post_init__(self) -> None:
        check(self.num_threads is None or self.num_threads > 0, "loader.num_threads", self.num_threads,
              "give a positive number, or null for this rank's share of the cores")
        check(0 <= self.hw_decoder_load <= 1, "loader.hw_decoder_load", self.hw_decoder_load,
              "give a share of each batch from 0 to 1")


@dataclass(frozen=True)
class Trial:
    """One setting, measured."""

    num_threads: int
    hw_decoder_load: float
    images_per_s: float

    def __str__(self) -> str:
        return (f"num_threads {self.num_threads}, hw_decoder_load {self.hw_decoder_load}: "
                f"{self.images_per_s:,.0f} images/s")


def tune(loader: Loader, seconds: float = SECONDS) -> list[Trial]:
    """Measure some settings and let the loader use the fastest; returns all trials, best first.

    First the number of threads, then on a GPU the load of its JPEG engine. The loader stays at its position. Several
    ranks should tune at the same time, since they share the machine in training too.
    """
    trials = [trial(loader, threads, loader.hw_decoder_load, seconds) for threads in thread_counts(share_of_cores())]
    if loader.device == "gpu":
        trials += [trial(loader, best(trials).num_threads, load, seconds) for load in LOADS]
    loader.num_threads, loader.hw_decoder_load = best(trials).num_threads, best(trials).hw_decoder_load
    return sorted(trials, key=lambda t: t.images_per_s, reverse=True)


def best(trials: Sequence[Trial]) -> Trial:
    """The fastest trial; the first of equals."""
    return max(trials, key=lambda t: t.images_per_s)


def trial(loader: Loader, num_threads: int, hw_decoder_load: float, seconds: float) -> Trial:
    """Measure the loader with this setting, over at least one batch and `seconds`; its position stays."""
    position = loader.position
    loader.num_threads, loader.hw_decoder_load = num_threads, hw_decoder_load
    batches = iter(loader)
    for _ in islice(batches, WARM_UP):
        pass
    images, began = 0, time.perf_counter()
    for batch in batches:
        images += len(batch.ids)
        if batch.images.is_cuda:
            torch.cuda.synchronize()
        if time.perf_counter() - began >= seconds:
            break
    took = time.perf_counter() - began
    loader.position = position
    return Trial(num_threads, hw_decoder_load, images / took)


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads to try with this many cores: powers of two, and all."""
    return sorted({*(2**n for n in range(cores.bit_length()) if 2**n <= cores), cores})
