"""A training step: forward as one module, backward over micro-batches, compiled where that is faster."""
import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arcshard.checkpoint import Weights
from arcshard.distributed import World, copy_flat, flattened
from model.backbone import said
from model.batchnorm import freeze_statistics
from model.embedder import Embedder
from model.heads import MarginHead
from training.config import TrainConfig


def backward(forward: Any, batch: Any, parts: int, c: TrainConfig, world: World, scale: Tensor | float = 1.0) -> Tensor:
    """Add up the gradients of the batch × scale, micro-batch by micro-batch; returns its mean loss, on the device."""
    total = torch.zeros((), device=world.device)
    pieces = zip(*(whole.chunk(parts) for whole in (batch.images, batch.jitter, batch.labels)))
    for number, piece in enumerate(pieces, start=1):
        # The ranks average their gradients once, with the last micro-batch.
        with forward.no_sync() if isinstance(forward, DistributedDataParallel) and number < parts else nullcontext():
            with autocast(c, world):
                loss = forward(*piece) / parts
            loss.backward(poison(loss, scale))
        total += loss.detach()
    return total


def autocast(c: TrainConfig, world: World) -> torch.autocast:
    """Around what runs in the number format of train.amp."""
    amp = ("bf16" if world.device.type == "cuda" else "none") if c.amp == "auto" else c.amp
    return torch.autocast(world.device.type, torch.float16 if amp == "fp16" else torch.bfloat16, enabled=amp != "none")


def poison(loss: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """The gradient to begin the backward pass with: the scale, or NaN for a loss that is not finite."""
    return torch.where(loss.isfinite(), scale, torch.nan)


def float_buffers(module: nn.Module) -> list[Tensor]:
    """The module's running statistics, and constants that are buffers."""
    return [b for b in module.buffers() if b.is_floating_point() and b.numel()]


class KeptBuffers:
    """The module's running statistics, which a forward pass that overflows would spoil for good.

    `restore_if_bad` takes them back where the step was bad, on the device.
    """

    def __init__(self, module: nn.Module):
        self._buffers = float_buffers(module)
        self.keep()

    def keep(self) -> None:
        """Take their present values as good."""
        if self._buffers:
            self._kept = flattened(self._buffers)

    def restore_if_bad(self, bad: Tensor) -> None:
        """Call it after each step; bad: bool scalar on the device."""
        if self._buffers:
            self._kept = torch.where(bad, self._kept, flattened(self._buffers))
            copy_flat(self._kept, self._buffers)


class Step(nn.Module):
    """Embedder and head: one module for DDP and torch.compile."""

    def __init__(self, embedder: Embedder, head: MarginHead):
        super().__init__()
        self.embedder, self.head = embedder, head

    def forward(self, images: Tensor, jitter: Tensor, labels: Tensor) -> Tensor:
        return self.head(self.embedder(images, jitter), labels)

    def weights(self) -> Weights:
        """For a checkpoint. All ranks must call."""
        return Weights(self.embedder.state_dict(), self.head.whole().state_dict())

    def load_weights(self, weights: Weights) -> None:
        self.embedder.load_state_dict(weights.embedder)
        self.head.load_state_dict(weights.head)


def freeze(step: Step, c: TrainConfig) -> None:
    """Let what train.frozen names have no gradient.

    Nothing is computed for that of a frozen backbone, whose input has none either.
    """
    for name, p in step.named_parameters():
        part = "head" if name.startswith("head.") else "backbone" if name.startswith("embedder.backbone.") else "neck"
        if part in c.frozen_parts:
            p.requires_grad_(False)


def without_gradient(step: Step, c: TrainConfig) -> list[nn.Parameter]:
    """Trained parameters that the embedding does not depend on: of layers that some backbones have behind their map.

    DDP would wait for their gradients. They are found by a pass of two black images.
    """
    trained = [p for p in step.embedder.parameters() if p.requires_grad]
    if not trained:
        return []
    with unchanged(step):
        embedding = step.embedder(torch.zeros(2, c.size, c.size, 3, dtype=torch.uint8, device=trained[0].device))
        gradients = torch.autograd.grad(embedding.sum(), trained, allow_unused=True)
    return [p for p, gradient in zip(trained, gradients) if gradient is None]


def train_mode(step: Step, c: TrainConfig, epoch: float) -> None:
    """Set training mode for this epoch, but eval mode for a frozen backbone and for frozen statistics."""
    step.train()
    if "backbone" in c.frozen_parts:
        step.embedder.backbone.eval()
    if "neck" in c.frozen_parts:
        for name, part in step.embedder.named_children():
            if name != "backbone":
                freeze_statistics(part)
    if c.batchnorm == "frozen":
        freeze_statistics(step.embedder.backbone)
    if c.batchnorm_frozen_from is not None and epoch >= c.batchnorm_frozen_from:
        freeze_statistics(step)


# Compilation, decided by a measurement before the first update. Embedder and head are a graph each: then the head's
# gradient is ready before the backward pass of the backbone begins, and DDP sends it meanwhile; from a single graph DDP
# gets all gradients at its end (pytorch/pytorch#109774).

# When torch 2.14 traces the head, it looks at the gradient of the head's input, which is not a leaf and has none.
warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)

WARM_UP, TIMED = 3, 10  # passes
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
    """Whether compilation is to be tried."""
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
            reason = said(error)
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
    """Undo what passes inside do to gradients, running statistics and random number generators."""
    kept = [(buffer, buffer.clone()) for buffer in step.buffers()]
    with torch.random.fork_rng({p.device.index for p in step.parameters() if p.is_cuda}):
        yield
    for buffer, value in kept:
        buffer.copy_(value)
    step.zero_grad(set_to_none=True)
