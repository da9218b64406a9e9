"""One update's gradients, added up over micro-batches and averaged over the ranks."""
import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from arcshard.console import UserError
from arcshard.distributed import World
from training.bad_steps import poison
from training.train_config import TrainConfig


def micro_batches(c: TrainConfig, world: World) -> int:
    """How many a rank's part of the global batch is cut into."""
    part = c.global_batch // world.size
    micro_batch = c.micro_batch or part
    if part % micro_batch:
        raise UserError(f"train.micro_batch must divide each rank's part of the global batch; got {micro_batch} for "
                        f"{part} images: choose {math.gcd(micro_batch, part)}, or another global_batch")
    return part // micro_batch


def backward(forward: Any, batch: Any, parts: int, c: TrainConfig, world: World, scale: Tensor | float = 1.0) -> Tensor:
    """Add up the gradients of the batch × scale, micro-batch by micro-batch; returns its mean loss, on the device."""
    total = torch.zeros((), device=world.device)
    pieces = zip(*(whole.chunk(parts) for whole in (batch.images, batch.jitter, batch.labels)))
    for number, piece in enumerate(pieces, start=1):
        # The ranks average their gradients once, with the last micro-batch.
        with forward.no_sync() if world.size > 1 and number < parts else nullcontext():
            with autocast(c, world):
                loss = forward(*piece) / parts
            loss.backward(poison(loss, scale))
        total += loss.detach()
    return total


def autocast(c: TrainConfig, world: World) -> torch.autocast:
    """Around what runs in the number format of train.amp."""
    amp = ("bf16" if world.device.type == "cuda" else "none") if c.amp == "auto" else c.amp
    return torch.autocast(world.device.type, torch.float16 if amp == "fp16" else torch.bfloat16, enabled=amp != "none")
