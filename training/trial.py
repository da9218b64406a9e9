"""Whether the network can take a run's batches: tried before it begins, on torch's meta device.

That device computes shapes alone: it needs neither weights nor memory, and draws no random numbers. On one busy core
the networks of configs/ took 0.1 to 0.9 s. What it refused of one to three models of each of timm's modules, the CPU
refused too.
"""
from dataclasses import replace

import torch

from arcshard.console import UserError
from arcshard.distributed import World
from model import ArcFace, build_embedder
from model.weights import width_of
from training.config import StageConfig
from training.step import LONGEST, Step, train_mode


def check_network(stages: list[StageConfig], world: World) -> None:
    """Raise UserError if the network, which the stages share, cannot take the smallest and largest images of the run.

    One image at a time is tried in each stage, as only some may freeze BatchNorm.
    """
    model, trains = stages[0].model, [config.train for config in stages]
    try:
        with torch.device("meta"):
            embedder = build_embedder(replace(model, weights="none"))
            step = Step(embedder, ArcFace(embedder.dim, 2))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"a network with model.backbone {model.backbone} and model.dim {model.dim} cannot be built "
                        f"({_said(error)}): give other ones, such as resnet50 and 512") from error
    untried = {min(c.first_size or c.size for c in trains), max(c.size for c in trains)}
    for c in trains:
        count = c.global_batch // c.micro_batches(world.size) // (1 if c.batchnorm == "synced" else world.size)
        train_mode(step, c, epoch=0)
        for size in sorted({c.first_size or c.size, c.size}):
            if count > 1 and size not in untried:
                continue
            untried.discard(size)
            reason = _refusal(step, count, size)
            if reason and count == 1 and not _refusal(step, 2, size):
                raise UserError(f"train.global_batch {c.global_batch} on {world.size} ranks with train.micro_batch "
                                f"{c.micro_batch or 'null'} leaves BatchNorm one image at a time, from which it cannot "
                                "learn: give it two or more, or set train.batchnorm_frozen_from 0")
            if reason:
                raise UserError(f"model.backbone {model.backbone} cannot take images of {size} × {size} pixels "
                                f"({reason}): give another train.size, or a backbone such as resnet50")


def _refusal(step: Step, count: int, size: int) -> str:
    """Why the network cannot take so many images; empty: it can. The head works on any embedding."""
    backbone = step.embedder.backbone
    try:
        with torch.no_grad():
            features = backbone(torch.empty(count, 3, size, size, device="meta"))
            if features.ndim != 4 or features.shape[1] != width_of(backbone):
                return f"its features are {tuple(features.shape)}, not (images, {width_of(backbone)}, height, width)"
            step.embedder.neck(features.mean((2, 3)))
    except Exception as error:  # whatever a timm model raises
        return _said(error)
    return ""


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
