"""The step by itself, with the loader, and under a profiler: train.py's own update on a GPU."""
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import torch
from gpu_scale import Row, Scale
from torch._inductor import config as inductor
from torch.profiler import ProfilerActivity, profile, record_function
from updates import IN_FLIGHT, SCHEDULE, Updates, synchronize, waited

from loader import Batch, tune
from training.config import TrainConfig
from training.step import CompiledStep

ROUNDS, WARM_UP, TRACED = 3, 5, 8
CLASSES = 81_313  # of Google Landmarks v2 clean
STEP_RATE, TOGETHER, DEVICE_WAIT, FIRST_SECONDS = 2900, 0.95, 0.01, 120
HEAD_MS = {81_313: 3.0, 203_094: 6.0}  # by number of classes
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
COPIES = ("cudaMemcpyAsync", "cudaMemcpy")
SPAN = "arcshard update"  # of the profile


class Variant(NamedTuple):
    """What differs from the usual: compiled, convolutions searched for, the head's products in true float32."""

    classes: int = CLASSES
    compiled: bool = True
    searched: bool = True
    tf32: bool = False
    max_autotune: bool = False


VARIANTS = {"compiled": Variant(), "eager": Variant(compiled=False), "203094-classes": Variant(classes=203_094),
            "no-cudnn-search": Variant(searched=False), "tf32": Variant(tf32=True),
            "max-autotune": Variant(max_autotune=True)}
MARKED = ("compiled", "203094-classes")


def step(scale: Scale) -> list[Row]:
    """Each variant alone, on one batch over and over."""
    batch = next(iter(scale.loader()))
    return [row for name in scale.variants for row in rows_of(name, VARIANTS[name], batch, scale)]


def rows_of(name: str, variant: Variant, batch: Batch, scale: Scale) -> list[Row]:
    classes = min(variant.classes, scale.most_classes)
    torch._dynamo.reset()
    if scale.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with settings(variant):
        began = time.perf_counter()
        updates = make_updates(scale, batch, classes, variant.compiled)
        updates(batch)
        synchronize()
        first = time.perf_counter() - began
        torch.backends.cudnn.benchmark = variant.searched
        rate = rate_of(updates, batch, scale.steps)
        head = head_ms(updates, batch, scale.steps)
    best, most_ms = STEP_RATE if name in MARKED else 0, HEAD_MS.get(classes, 0) if name in MARKED else 0
    as_asked = isinstance(updates.forward, CompiledStep) == variant.compiled
    return [scale.row("step", f"{name}: images/s", f"{rate:,.0f}" + ("" if as_asked else ", NOT compiled"),
                      f">= {best:,}" if best else "", as_asked and rate >= best),
            scale.row("step", f"{name}: head of {classes:,} classes", f"{head:.2f} ms",
                      f"<= {most_ms:g} ms" if most_ms else "", head <= most_ms),
            scale.row("step", f"{name}: to the end of the first step", f"{first:.0f} s", f"< {FIRST_SECONDS} s",
                      first < FIRST_SECONDS),
            scale.row("step", f"{name}: memory", memory(scale))]


def both(scale: Scale) -> list[Row]:
    """The loader, as fast as it gets here, and the step on the batches that it gives."""
    loader = scale.loader()
    fastest = tune(loader, scale.trial_seconds)[0]
    batches = iter(loader)
    updates = make_updates(scale, next(batches), min(CLASSES, scale.most_classes))
    cached = next(batches)
    alone = rate_of(updates, cached, scale.steps)
    for batch in islice(batches, IN_FLIGHT):
        updates(batch)
    synchronize()
    began = time.perf_counter()
    seen = updates.on(islice(batches, scale.steps_together))
    synchronize()
    seconds = time.perf_counter() - began
    together, wait = scale.batch_size * len(seen) / seconds, waited(seen) / seconds
    hours = SCHEDULE / together / 3600
    rows = [scale.row("both", "loader's setting", str(fastest)),
            scale.row("both", "step alone", f"{alone:,.0f} images/s"),
            scale.row("both", f"{len(seen)} steps with the loader", f"{together:,.0f} images/s"),
            scale.row("both", "together / alone", f"{together / alone:.3f}", f">= {TOGETHER}",
                      together / alone >= TOGETHER),
            scale.row("both", "the device waited", f"{wait:.2%}", f"< {DEVICE_WAIT:.0%}", wait < DEVICE_WAIT),
            scale.row("both", "the host waited", f"{sum(batch.wait for batch in seen) / seconds:.2%}")]
    if scale.on_gpu:
        rows.append(scale.row("both", "10 epochs of 1,223,195 photos, by this rate", f"{hours:.1f} h on one such GPU, "
                              f"{hours / 8:.1f} h on eight that lose nothing to each other"))
    return rows


def trace(scale: Scale) -> list[Row]:
    """A profile of some steps with the loader; RUN/trace.json.gz holds all of it."""
    batches = iter(scale.loader())
    updates = make_updates(scale, next(batches), min(CLASSES, scale.most_classes))
    for batch in islice(batches, WARM_UP):
        updates(batch)
    synchronize()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if scale.on_gpu else [])]
    with profile(activities=activities) as profiled:
        for batch in islice(batches, TRACED):
            with record_function(SPAN):
                updates(batch)
        synchronize()
    profiled.export_chrome_trace(str(scale.out / "trace.json.gz"))
    waits, copies = (inside(profiled.events(), names) / TRACED for names in (WAITS, COPIES))
    rows = [scale.row("trace", "waits of the host for the device, a step", f"{waits:g}", "0", waits == 0),
            scale.row("trace", "copies between host and device, a step", f"{copies:g}")]
    return [*rows, *(scale.row("trace", f"{place}. {key[:70]}", f"{milliseconds:.2f} ms a step")
                     for place, (key, milliseconds) in enumerate(longest(profiled, scale), start=1))]


def inside(events: Any, names: tuple[str, ...]) -> int:
    """How many events of these names the thread that updates has within an update."""
    spans = [(e.thread, e.time_range) for e in events if e.name == SPAN and e.device_type.name == "CPU"]
    return sum(event.thread == thread and span.start <= event.time_range.start < span.end
               for event in events if event.name in names for thread, span in spans)


def longest(profiled: Any, scale: Scale, count: int = 12) -> list[tuple[str, float]]:
    """The kernels (on a CPU the operators) that take longest, with their time in milliseconds a step."""
    name = "self_device_time_total" if scale.on_gpu else "self_cpu_time_total"
    found = sorted(((e.key, getattr(e, name) / 1000 / TRACED) for e in profiled.key_averages() if e.key != SPAN),
                   key=lambda pair: pair[1], reverse=True)
    return found[:count]


def make_updates(scale: Scale, example: Batch, classes: int, compiled: bool | None = None) -> Updates:
    """compiled: None compiles on a GPU alone, as train.py does."""
    compiled = scale.on_gpu if compiled is None else compiled
    c = TrainConfig(global_batch=scale.batch_size, ema=1e6, compile="always" if compiled else "never")
    return Updates(scale.backbone, classes, example, c, scale.world)


def rate_of(updates: Updates, batch: Batch, steps: int) -> float:
    """Images a second, the median of some rounds."""
    return len(batch.labels) / seconds_of(lambda: updates(batch), steps)


def head_ms(updates: Updates, batch: Batch, steps: int) -> float:
    """Forward and backward pass of the head by itself, in the form that the step has, in milliseconds."""
    head = updates.state.step.head
    form = torch.compile(head, fullgraph=True, dynamic=False) if isinstance(updates.forward, CompiledStep) else head
    x = torch.randn(len(batch.labels), updates.state.step.embedder.dim, device=batch.labels.device,
                    requires_grad=True)

    def work() -> None:
        form(x, batch.labels).backward()
        x.grad = head.weight.grad = None

    return 1000 * seconds_of(work, steps)


def seconds_of(work: Callable[[], None], count: int) -> float:
    """A call of many in a row, the median of some rounds after a warm-up."""
    for _ in range(min(WARM_UP, count)):
        work()
    seconds = []
    for _ in range(ROUNDS):
        synchronize()
        began = time.perf_counter()
        for _ in range(count):
            work()
        synchronize()
        seconds.append((time.perf_counter() - began) / count)
    return statistics.median(seconds)


@contextmanager
def settings(variant: Variant) -> Iterator[None]:
    """torch's switches as the variant has them, and as they were afterwards."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if variant.tf32 else "highest")
    try:
        with inductor.patch(max_autotune=variant.max_autotune):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)


def memory(scale: Scale) -> str:
    """Of tensors at the peak, and of the device now: what DALI took, too."""
    if not scale.on_gpu:
        return "not on a CPU"
    free, total = torch.cuda.mem_get_info()
    return f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB of tensors, {(total - free) / 1e9:.1f} GB of the device"
