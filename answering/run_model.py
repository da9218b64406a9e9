"""A run's network, ready to embed photos as it saw them in training."""
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from answering.tta import Tta
from arcshard import checkpoint
from arcshard.console import UserError
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
    tta: Tta = Tta()
    """The views that an embedding is the mean of."""


def load_model(out: Path, name: str = checkpoint.NAME, tta: Tta = Tta()) -> RunModel:
    """The network of a checkpoint of the run; no other weights are needed.

    Raises UserError for scales where the backbone takes one size only.
    """
    saved = checkpoint.load(out, name)
    model = _run_model(saved, checkpoint.fingerprint(out, name), weights="none")
    backbone: Any = model.embedder.backbone  # timm's attributes have no types
    if tta.scales and backbone.pretrained_cfg.get("fixed_input_size"):
        raise UserError(f"scales need a backbone of any input size, but that of {out} takes one, "
                        f"{saved['config']['model']['backbone']}: leave them out of --tta")
    weights = checkpoint.weights_to_use(saved)
    model.embedder.load_state_dict(weights["embedder"])
    centers = saved["config"]["head"]["centers"]
    return replace(model, tta=tta, centers=weights["head"]["weight"].float().unflatten(0, (-1, centers)).numpy())


def load_untrained(out: Path) -> RunModel:
    """What the run began from: the pretrained backbone, averaged as in its own training (stronger here than GeM)."""
    return _run_model(checkpoint.load(out), "untrained", neck="none", pooling="avg")


def _run_model(saved: dict[str, Any], fingerprint: str, **changes: Any) -> RunModel:
    config = saved["config"]
    cuda = torch.cuda.is_available() and config["train"]["device"] != "cpu"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    embedder = build_embedder(replace(ModelConfig(**config["model"]), **changes)).to(device).eval()
    view, cache = View(**config["view"]), CacheConfig(**config.get("cache", {}))
    return RunModel(embedder, config["train"]["size"], view, saved["packing"], cache, fingerprint, device)
