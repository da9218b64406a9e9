"""What a stage trains, network, head, optimizer and average, and how an update changes them."""
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint
from arcshard.console import UserError, progress
from arcshard.distributed import World
from loader import Batch
from model import HeadConfig, ModelConfig, build_embedder, build_head
from model.backbone import LONGEST, resize
from model.batchnorm import correct_momentum
from model.heads import remap_centers
from model.stats import class_means, init_centers
from shards.classes import label_map
from training.config import TrainConfig
from training.optim import AveragedWeights, LossScale, build_optimizer, clip, keep_out_of_ddp, own_state, step_unless
from training.stage import StageRun, images_ahead
from training.step import (
    KeptBuffers,
    Step,
    autocast,
    backward,
    choose_form,
    float_buffers,
    freeze,
    may_compile,
    train_mode,
    without_gradient,
)


@dataclass
class TrainState:
    """What an update changes, and how it is made."""

    c: TrainConfig
    world: World
    step: Step
    optimizer: torch.optim.Optimizer
    average: AveragedWeights[Step] | None
    """Of the step's weights, if the run keeps one."""
    buffers: KeptBuffers
    """Its running statistics after the last good update."""
    scale: LossScale | None
    """Of the losses, in float16."""
    updates: int
    """Done so far in the run."""
    frozen: bool = False
    """Whether every BatchNorm has been frozen since the process began."""

    def __post_init__(self) -> None:
        self.micro_batches = self.c.micro_batches(self.world.size)

    @property
    def evaluated(self) -> Step:
        """What is validated."""
        return self.average.module if self.average else self.step

    def set_mode(self, epoch: float) -> None:
        """Set training mode for this epoch. All ranks must call; BatchNorm is frozen with rank 0's statistics."""
        frozen = self.c.batchnorm_frozen_from is not None and epoch >= self.c.batchnorm_frozen_from
        if frozen and not self.frozen:
            self.world.share(float_buffers(self.step))
            self.buffers.keep()
        self.frozen = frozen
        train_mode(self.step, self.c, epoch)


@contextmanager
def enough_memory() -> Iterator[None]:
    """Turn the device's or the machine's refusal of memory into a UserError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(f"there is too little memory ({' '.join(str(error).split())[:LONGEST]}): give a smaller "
                        "train.micro_batch, train.size or model.dim, or another backbone") from error


@enough_memory()
def build_state(stage: StageRun, saved: Checkpoint | None) -> TrainState:
    """New from the seed, continued from the checkpoint, or with the weights, not the optimizer, of the stage before.

    Raises UserError if the checkpoint has other classes.
    """
    config, c, world = stage.config, stage.c, stage.world
    torch.manual_seed(stage.seed)  # the same weights on every rank
    model = replace(config.model, weights="none") if saved else config.model
    before = saved.config["train"]["size"] if saved else c.size
    step = build_step(model, config.head, stage.class_sizes, c, world, before)
    if saved and not stage.continues:
        step.embedder.load_state_dict(saved.weights.embedder)
        resize(step.embedder.backbone, model.backbone, before, c.size)
    optimizer = build_optimizer(step, step.embedder.backbone, c)
    if c.layer_decay < 1 and "backbone" not in c.frozen_parts:
        shares = [group["lr_share"] for group in optimizer.param_groups if group["params"]]
        world.log(f"{stage.title}the backbone learns at {min(shares):.3g} (first layer) to {c.backbone_lr:.3g} times "
                  "train.lr (last layer)")
    if saved and stage.continues:
        with checkpoint.fitting(stage.run.out):
            resume(step, optimizer, saved)
    elif saved:
        if config.stage.classes != "new":
            theirs, ours = saved.landmark_ids, stage.loader.dataset.landmark_ids
            remap_centers(step.head, saved.weights.head, len(theirs), label_map(theirs, ours))
    if config.head.init == "means" and not stage.continues and (not saved or config.stage.classes == "new"):
        begin_at_means(stage, step)
    average = averaged(step, c, saved if stage.continues else None)
    scale = LossScale(world) if c.amp == "fp16" else None
    if scale and saved and saved.loss_scale:
        scale.load_state_dict(saved.loss_scale)
    correct_momentum(step, c.micro_batches(world.size))
    train_mode(step, c, stage.epochs_done)
    return TrainState(c, world, step, optimizer, average, KeptBuffers(step), scale, saved.step if saved else 0)


def build_step(model: ModelConfig, head: HeadConfig, class_sizes: np.ndarray, c: TrainConfig, world: World,
               size: int) -> Step:
    """Embedder, for images of side `size`, and head on this rank's device. class_sizes: photos of each class, (C,)."""
    embedder = build_embedder(model, c.drop_path, size)
    step = Step(embedder, build_head(head, embedder.dim, len(class_sizes), class_sizes, world)).to(world.device)
    if c.batchnorm == "synced":
        step = convert_sync_batchnorm(step)
    freeze(step, c)
    return step


def resume(step: Step, optimizer: torch.optim.Optimizer, saved: Checkpoint) -> None:
    """Load what the stage's own checkpoint holds. Raises UserError if it has other classes."""
    if len(saved.weights.head["weight"]) != step.head.num_centers:
        raise UserError("the dataset has other classes than the run: its head has "
                        f"{len(saved.weights.head['weight']):,} centers, and this dataset needs "
                        f"{step.head.num_centers:,}: give another --out")
    step.load_weights(saved.weights)
    optimizer.load_state_dict(own_state(saved.optimizer, optimizer, step.head))


def averaged(step: Step, c: TrainConfig, saved: Checkpoint | None) -> AveragedWeights[Step] | None:
    """The average of the step's weights, if the run keeps one."""
    if c.ema is None:
        return None
    average = AveragedWeights(step, c.ema)
    if saved and saved.average:
        average.module.load_weights(saved.average)
    return average


def begin_at_means(stage: StageRun, step: Step) -> None:
    """Turn each class's first center to the mean of its photos, over the first images of the training; in eval mode.

    All ranks must call. A class that these images do not show keeps its random center.
    """
    step.eval()
    with autocast(stage.c, stage.world):
        means = class_means(lambda batch: step.embedder(batch.images, batch.jitter), _first_batches(stage),
                            len(stage.class_sizes), stage.world)
    init_centers(step.head, means)


def _first_batches(stage: StageRun) -> Iterator[Any]:
    """Those that the means are taken over, with a progress bar."""
    count = min(stage.epoch, stage.config.head.init_images or stage.epoch)
    size = stage.loader.global_batch
    with progress(total=math.ceil(count / size) * size, unit="images", what="class means",
                  disable=not stage.world.is_main) as bar:
        for batch in images_ahead(stage, count):
            yield batch
            bar.update(size)


@enough_memory()
def parallel(state: TrainState, example: Callable[[], Any]) -> nn.Module:
    """The step as it is called: compiled where that is faster, gradients averaged over the ranks.

    example: gives a batch, to try compilation on.
    """
    step, c, world = state.step, state.c, state.world
    torch.backends.cudnn.benchmark = c.first_size is None  # shapes are fixed: look for the fastest convolutions once
    module: Any = step
    if may_compile(c, world):
        batch = example()
        size = len(batch.labels) // state.micro_batches
        module, said = choose_form(step, (batch.images[:size], batch.jitter[:size], batch.labels[:size]), c, world)
        world.log(said)
    if world.size == 1:
        return module
    apart = [*step.head.sharded_parameters, *without_gradient(step, c)]
    if any(p.requires_grad for p in step.parameters() if not any(p is other for other in apart)):
        keep_out_of_ddp(module, apart)
        on_gpu = world.device.type == "cuda"
        module = DistributedDataParallel(module, device_ids=[world.device.index] if on_gpu else None,
                                         gradient_as_bucket_view=True)
    return module


@enough_memory()
def update(state: TrainState, forward: Any, batch: Batch, end: int) -> tuple[Tensor, Tensor]:
    """Update all that training changes, without waiting for the device.

    Returns this rank's mean loss and whether the update was bad and left out, scalars on the device.

    forward: what `parallel` made of the step. end: images of the stage, with this batch.
    """
    step, c, world, scale = state.step, state.c, state.world, state.scale
    world.share(step.head.statistics)
    loss = backward(forward, batch, state.micro_batches, c, world, scale.value if scale else 1.0)
    if scale:
        scale.unscale(step.parameters())
    bad = clip(step, c)
    step_unless(bad, state.optimizer)
    state.buffers.restore_if_bad(bad)
    if scale:
        bad = scale.update(bad, loss)
    if state.average:
        state.average.update(c.global_batch, end)
    state.updates += 1
    return loss, bad
