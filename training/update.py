"""One update of everything that training changes, without waiting for the device."""
from typing import Any

from torch import Tensor

from arcshard.distributed import World
from loader import Batch
from training.accumulation import backward, micro_batches
from training.learner import Learner
from training.optimizers import clip, step_unless
from training.train_config import TrainConfig


def update(learner: Learner, forward: Any, batch: Batch, position: int, c: TrainConfig, world: World
           ) -> tuple[Tensor, Tensor]:
    """Returns this rank's mean loss and whether the update was bad and left out, scalars on the device.

    forward: what `parallel` made of the step. position: images of the stage, after this update.
    """
    step, scale = learner.step, learner.scale
    world.share(step.head.statistics)
    loss = backward(forward, batch, micro_batches(c, world), c, world, scale.value if scale else 1.0)
    if scale:
        scale.unscale(step.parameters())
    bad = clip(step.parameters(), step.head.spread, c.clip)
    step_unless(bad, learner.optimizer)
    learner.buffers.settle(bad)
    if scale:
        bad = scale.settle(bad, loss)
    if learner.average:
        learner.average.update(c.global_batch, position)
    learner.updates += 1
    return loss, bad
