"""A run's network, ready to embed photos as it saw them in training, and the options that choose it."""
import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from arcshard import checkpoint
from arcshard.console import Parser, UserError
from loader import Batch, View
from model import Embedder, ModelConfig, build_embedder
from retrieval import Pipeline, read_pipeline
from shards import CacheConfig

# Test-time augmentation: one embedding of several views of a photo.


@dataclass(frozen=True)
class Tta:
    """Which views are averaged: the photo at the size of training, and these."""
    flip: bool = False
    """Each view's mirror image as well."""
    scales: tuple[float, ...] = ()
    """The photo at these multiples of the size."""

    @property
    def name(self) -> str:
        """As `read_tta` takes it."""
        return ",".join([*(["flip"] if self.flip else []), *(f"{scale:g}" for scale in self.scales)]) or "none"

    def sizes(self, size: int) -> list[int]:
        """Sides of the views, pixels, mirror images apart."""
        return [size, *(round(size * scale) for scale in self.scales)]


def read_tta(text: str) -> Tta:
    """Parse none, or flip and scales separated by commas; an argparse type."""
    words = [word for word in text.split(",") if word != "none"]
    try:
        scales = tuple(float(word) for word in words if word != "flip")
    except ValueError:
        scales = (0.0,)
    if not all(0.1 <= scale <= 4 for scale in scales):
        raise argparse.ArgumentTypeError(f"{text} names no views: give none, or flip and scales of 0.1 to 4, as in "
                                         "flip,0.8,1.25")
    return Tta("flip" in words, scales)


@torch.inference_mode()
def embed_views(embedder: Embedder, views: Sequence[Batch], flip: bool) -> NDArray[np.float32]:
    """float32 (n, D) at length 1: the sum over views v of e_v / |e_v|, scaled to length 1.

    views: the same n photos at different sizes. flip: their mirror images count as views too.
    """
    total = torch.zeros((), device=views[0].images.device)
    for batch in views:
        for images in (batch.images, *([batch.images.flip(2)] if flip else [])):
            total = total + F.normalize(embedder(images, batch.jitter))
    return F.normalize(total).cpu().numpy()


# Options that several commands share.

def add_answer_options(parser: Parser) -> None:
    """Add the options that decide how photos are answered."""
    parser.add_argument("--pipeline", type=Path, metavar="YAML",
                        help="list of steps, as in configs/pipelines (default: the vote of the five nearest neighbors)")
    parser.refuse_renamed("--answers", "--pipeline")
    parser.add_argument("--ensemble", type=Path, nargs="+", default=[], metavar="RUN",
                        help="further runs, whose embeddings answer together with this one's")
    add_tta(parser)


def pipeline_of(args: argparse.Namespace) -> Pipeline:
    """The pipeline that --pipeline names. Raises UserError for a file that holds none."""
    return read_pipeline(args.pipeline) if args.pipeline else Pipeline()


def add_tta(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tta", type=read_tta, default=Tta(), metavar="VIEWS",
                        help="mean embedding of more views of each photo: flip and scales of the run's size, as in "
                             "flip,0.8,1.25 (default: none)")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE",
                        help=f"the run's file to use (default: {checkpoint.NAME}, the latest; {checkpoint.BEST} is "
                             "there with train.best, others with train.keep)")


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
    trained_on: str | None
    """Fingerprint of the train split that it learned from, if known."""
    cache: CacheConfig
    """How it reads object storage."""
    fingerprint: str
    """Of its weights."""
    device: torch.device
    centers: np.ndarray | None = None
    """The head's centers, float32 (C, K, D)."""
    tta: Tta = Tta()
    """The views that an embedding is the mean of."""


def load_model(out: Path, name: str = checkpoint.NAME, tta: Tta = Tta()) -> RunModel:
    """The network of a checkpoint of the run; no other weights are needed.

    Raises UserError for scales where the backbone takes one size only.
    """
    saved = checkpoint.load(out, name)
    with checkpoint.fitting(out, name):
        model = _run_model(saved, checkpoint.fingerprint(out, name), weights="none")
        weights = saved.best_weights
        model.embedder.load_state_dict(weights.embedder)
        centers = weights.head["weight"].float().unflatten(0, (-1, saved.config["head"]["centers"])).numpy()
    backbone: Any = model.embedder.backbone  # timm's attributes have no types
    if tta.scales and backbone.pretrained_cfg.get("fixed_input_size"):
        raise UserError(f"the backbone of {out}, {saved.config['model']['backbone']}, takes one image size only: "
                        "leave scales out of --tta")
    return replace(model, tta=tta, centers=centers)


def load_untrained(out: Path) -> RunModel:
    """What the run started from: the pretrained backbone with average pooling, as pretrained; GeM is worse here."""
    saved = checkpoint.load(out)
    with checkpoint.fitting(out):
        return _run_model(saved, "untrained", neck="none", pooling="avg")


def _run_model(saved: checkpoint.Checkpoint, fingerprint: str, **changes: Any) -> RunModel:
    config = saved.config
    cuda = torch.cuda.is_available() and config["train"]["device"] != "cpu"
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    embedder = build_embedder(replace(ModelConfig(**config["model"]), **changes)).to(device).eval()
    view, cache = View(**config["view"]), CacheConfig(**config.get("cache", {}))
    return RunModel(embedder, config["train"]["size"], view, saved.packing, saved.trained_on, cache, fingerprint,
                    device)
