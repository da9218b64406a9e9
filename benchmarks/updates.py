"""Training updates as train.py does them, on random weights, to be timed."""
from collections.abc import Iterable

import numpy as np
import torch

from arcshard.distributed import World
from loader import Batch
from loader.pipeline import PREFETCH
from model import HeadConfig, ModelConfig
from training.config import TrainConfig
from training.optim import build_optimizer
from training.state import TrainState, averaged, build_step, parallel, update
from training.step import KeptBuffers

SCHEDULE = 10 * 1_223_195  # images: ten epochs of Google Landmarks without its classes of fewer than 15 photos
IN_FLIGHT = PREFETCH + 2  # batches that the loader prepares ahead: in DALI, being resized, being planned


class Updates:
    """One update after the other, its losses and flags left on the device. All ranks must call.

    Args:
        backbone: timm's name.
        example: a batch, by which the form of the step is chosen.
        c: as train.py's; `c.ema` decides whether averaged weights are kept.
    """

    def __init__(self, backbone: str, num_classes: int, example: Batch, c: TrainConfig, world: World):
        step = build_step(ModelConfig(backbone=backbone, weights="none"), HeadConfig(), np.ones(num_classes, int), c,
                          world, c.size).train()
        self.state = TrainState(c, world, step, build_optimizer(step, step.embedder.backbone, c),
                                averaged(step, c, None), KeptBuffers(step), scale=None, updates=0)
        self.forward = parallel(self.state, lambda: example)

    def __call__(self, batch: Batch) -> None:
        update(self.state, self.forward, batch, (self.state.updates + 1) * self.state.c.global_batch)

    def on(self, batches: Iterable[Batch]) -> list[Batch]:
        """Update on each; returns them without their images, which would fill the memory."""
        seen = []
        for batch in batches:
            self(batch)
            batch.images = torch.empty(0)
            seen.append(batch)
        return seen


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def waited(batches: list[Batch]) -> float:
    """Seconds that this rank waited for these batches: its device where that is known, once it is done with them."""
    return sum(batch.device_wait.seconds() if batch.device_wait else batch.wait for batch in batches)
