"""A run's network, ready to embed photos as it saw them in training."""
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arcshard import checkpoint
from loader import View
from model import Embedder, ModelConfig, build_embedder
from shards import CacheConfig


@dataclass
class RunModel:
    """A run's network, ready to embed."""

    embedder: Embedder
    size: int
    """Side of the images that it was trained on, pixels."""
    view: View
    """How photos were framed for its training."""
    packing: dict[str, Any]
    """How the photos that it was trained on were packed."""
    cache: CacheConfig
    """How it reads object storage."""
    fingerprint: str
    """Of its weights."""
    device: torch.device
    centers: np.ndarray | None = None
    """The head's centres, float32 (C, K, D)."""


def load_model(out: Path, name: str = checkpoint.NAME) -> RunModel:
    """The network of a checkpoint of the run; no other weights are needed."""
    saved = checkpoint.load(out, name)
    model = _run_model(saved, checkpoint.fingerprint(out, name), weights="none")
    weights = checkpoint.weights_to_use(saved)
    model.embedder.load_state_dict(weights["embedder"])
    centers = saved["config"]["head"]["centers"]
    return replace(model, centers=weights["head"]["weight"].float().unflatten(0, (-1, centers)).numpy())


def load_untrained(out: Path) -> RunModel:
    """What the run began from: the pretrained backbone, averaged as in its own training (stronger here than GeM)."""
    return _run_model(checkpoint.load(out), "untrained", neck="none", pooling="avg")


def _run_model(saved: dict[str, Any], fingerprint: str, **changes: Any) -> RunModel:
    config = saved["config"]
    cuda = torch.cuda.is_available() and config["train"]["device"] != "cpu"
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    embedder = build_embedder(replace(ModelConfig(**config["model"]), **changes)).to(device)
    view, cache = View(**config["view"]), CacheConfig(**config.get("cache", {}))
    return RunModel(embedder, config["train"]["size"], view, saved["packing"], cache, fingerprint, device)
