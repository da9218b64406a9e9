"""Whether the step runs compiled: measured before the first update, which leaves no trace.

Embedder and head are a graph each: the head's gradient is then there before the backward pass of the backbone begins,
and DDP sends it meanwhile. Of one graph DDP gets all gradients at its end (pytorch/pytorch#109774).
"""
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from arcshard.distributed import World
from training.accumulation import autocast
from training.step import Step
from training.train_config import TrainConfig

# torch 2.14 looks at the gradient of what the embedder gives the head, which has none, when it traces the head.
warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)

WARM_UP, TIMED = 3, 10  # passes
LONGEST = 200  # characters of a reason


NO_SYNCED = ("torch cannot compile a synced BatchNorm without breaking the graph, so with train.batchnorm synced only "
             "the head is compiled")


class CompiledStep(nn.Module):
    """The step with embedder and head compiled; parameters and buffers are the step's own, under `step`.

    Shapes are fixed, unless the images grow: then the second size makes them symbols. An embedder with SyncBatchNorm
    runs as it is (pytorch/pytorch#156680).
    """

    def __init__(self, step: Step, c: TrainConfig, backend: Any = "inductor"):
        super().__init__()
        self.step = step
        options: dict[str, Any] = {"fullgraph": True, "dynamic": False if c.first_size is None else None,
                                   "backend": backend}
        # In a tuple, as they would be registered as further modules otherwise.
        self._forms = (step.embedder if c.batchnorm == "synced" else torch.compile(step.embedder, **options),
                       torch.compile(step.head, **options))

    def forward(self, images: Tensor, jitter: Tensor, labels: Tensor) -> Tensor:
        embed, loss = self._forms
        value: Tensor = loss(embed(images, jitter), labels)
        return value


def may_compile(c: TrainConfig, world: World) -> bool:
    """Whether there is something to choose."""
    return c.compile == "always" or c.compile == "auto" and world.device.type == "cuda"


def choose_form(step: Step, inputs: tuple[Tensor, ...], c: TrainConfig, world: World, backend: Any = "inductor"
                ) -> tuple[Any, str]:
    """The step compiled or as it is, and a sentence that says which and why.

    inputs: a micro-batch for the step. All ranks must call, and choose alike.
    """
    form, reason, seconds = CompiledStep(step, c, backend), "", 0.0
    with unchanged(step):
        plain = seconds_of(step, inputs, c, world) if c.compile == "auto" else 0.0
        try:
            seconds = seconds_of(form, inputs, c, world)
        except RuntimeError as error:  # a graph break, no C++ compiler, no Triton, no memory
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST]
    if world.any(bool(reason)):
        return step, f"the step cannot be compiled ({reason or 'on another rank'}): it runs as it is"
    if c.compile == "always":
        return form, NO_SYNCED if c.batchnorm == "synced" else "the step runs compiled"
    plain, seconds = (total / world.size for total in world.sum(plain, seconds))
    faster = seconds < plain
    return form if faster else step, (f"forward and backward took {1000 * plain:.1f} ms as it is and "
                                      f"{1000 * seconds:.1f} ms compiled: the step runs "
                                      f"{'compiled' if faster else 'as it is'}"
                                      + (f" ({NO_SYNCED})" if c.batchnorm == "synced" else ""))


def seconds_of(form: Any, inputs: tuple[Tensor, ...], c: TrainConfig, world: World) -> float:
    """Median of a forward and backward pass."""
    seconds = []
    for _ in range(WARM_UP + TIMED):
        began = time.perf_counter()
        with autocast(c, world):
            loss = form(*inputs)
        loss.backward()
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM_UP:])


@contextmanager
def unchanged(step: nn.Module) -> Iterator[None]:
    """Forget what passes inside do to gradients, running statistics and the generators of random numbers."""
    kept = [(buffer, buffer.clone()) for buffer in step.buffers()]
    with torch.random.fork_rng({p.device.index for p in step.parameters() if p.is_cuda}):
        yield
    for buffer, value in kept:
        buffer.copy_(value)
    step.zero_grad(set_to_none=True)
