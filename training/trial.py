"""Whether the network can take a run's batches: tried before it begins, on torch's meta device.

That device computes shapes alone: it needs neither weights nor memory, and draws no random numbers. On one busy core
the networks of configs/ took 0.1 to 0.9 s.
"""
from dataclasses import replace
from typing import Any

import torch

from arcshard.console import UserError
from arcshard.distributed import World
from loader import GrowingSize
from model import ArcFace, ModelConfig, build_embedder
from model.backbone import resize, said, size_options, wrong_size
from model.pooling import make_pooling
from model.weights import check_name
from training.config import StageConfig, TrainConfig
from training.step import Step, train_mode


def check_network(stages: list[StageConfig], world: World) -> None:
    """Raise UserError if the network, which the stages share, cannot take the images of the run.

    One image at a time is tried in each stage, as only some may freeze BatchNorm.
    """
    model = stages[0].model
    untried = {size for config in stages for size in sizes(config.train)}
    steps: dict[str, Step] = {}
    for c in (config.train for config in stages):
        made_for = str(_options(model, c.size))
        step = steps[made_for] = steps.get(made_for) or network(model, c.size)
        count = c.global_batch // c.micro_batches(world.size) // (1 if c.batchnorm == "synced" else world.size)
        train_mode(step, c, epoch=0)
        for size in sizes(c):
            if count > 1 and size not in untried:
                continue
            untried.discard(size)
            reason = _refusal(step, count, size)
            if reason and count == 1 and not _refusal(step, 2, size):
                raise UserError(f"train.global_batch {c.global_batch} on {world.size} ranks with train.micro_batch "
                                f"{c.micro_batch or 'null'} leaves BatchNorm one image at a time, from which it cannot "
                                "learn: give it two or more, or set train.batchnorm_frozen_from 0")
            if reason:
                raise wrong_size(model.backbone, size, reason)
    for before, after in zip(stages, stages[1:]):
        backbone = steps[str(_options(model, before.train.size))].embedder.backbone
        resize(backbone, model.backbone, before.train.size, after.train.size)


def sizes(c: TrainConfig) -> list[int]:
    """Sides of the images of a stage, rising."""
    if c.first_size is None:
        return [c.size]
    growing = GrowingSize(c.first_size, c.size, epochs=1)
    return sorted({growing.at(epoch / 1000) for epoch in range(1001)})


def network(model: ModelConfig, size: int) -> Step:
    """The network on the meta device, made for images of this side, and a head that works on any embedding."""
    try:
        with torch.device("meta"):
            embedder = build_embedder(replace(model, weights="none"), size=size)
            embedder.pooling = make_pooling("avg")  # shapes as GeM's, whose autocast the device does not have
            return Step(embedder, ArcFace(embedder.dim, 2))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"a network with model.backbone {model.backbone} and model.dim {model.dim} cannot be built "
                        f"({said(error)}): give other ones, such as resnet50 and 512") from error


def _options(model: ModelConfig, size: int) -> dict[str, Any]:
    check_name(model.backbone)
    return size_options(model.backbone, size)


def _refusal(step: Step, count: int, size: int) -> str:
    """Why the network cannot take so many images; empty: it can."""
    embedder = step.embedder
    try:
        with torch.no_grad():
            embedder.neck(embedder.pooled(torch.empty(count, 3, size, size, device="meta")))
    except Exception as error:  # whatever a timm model raises
        return said(error)
    return ""
