"""A run as train.py leaves it, its weights random: for tests of who answers, not how well."""
from dataclasses import asdict
from pathlib import Path

import torch

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from loader import View
from model import ModelConfig, build_embedder


def save_random_run(out: Path, classes: int, centers: int = 1, dim: int = 32) -> Path:
    """Write a checkpoint of a tiny network for images of 48 pixels, and a head of so many classes, into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = ModelConfig(backbone="test_efficientnet", weights="none", dim=dim)
    options = {"model": asdict(config), "view": asdict(View()), "head": {"centers": centers},
               "train": {"size": 48, "device": "cpu"}}
    weights = Weights(build_embedder(config).state_dict(), {"weight": torch.randn(classes * centers, dim)})
    checkpoint.save(out, Checkpoint(options, weights))
    return out
