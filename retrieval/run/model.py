"""A run's network, ready to embed photos as it saw them in training, and the options that choose it."""
import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from arcshard import checkpoint
from arcshard.console import Parser, UserError
from arcshard.untrusted import reason
from loader import View
from model import Embedder, ModelConfig, build_embedder
from model.backbone import check_size, form_of, resize
from retrieval import Pipeline, read_pipeline
from shards import CacheConfig

UNTRAINED = "untrained"  # in place of the fingerprint of weights
LARGEST = 4096  # side of images in pixels; a batch of 64 takes 3.2 GB as bytes, 13 GB as the network's input

# Test-time augmentation: one embedding of several views of a photo.


@dataclass(frozen=True)
class Tta:
    """Which views are averaged: the photo at its size, and these."""
    flip: bool = False
    """Each view's mirror image as well."""
    scales: tuple[float, ...] = ()
    """The photo at these multiples of the size."""
    size: int | None = None
    """Side of the images, pixels; None: that of the run's training."""

    @property
    def name(self) -> str:
        """As `read_tta` takes it."""
        return ",".join([*(["flip"] if self.flip else []), *(f"{scale:g}" for scale in self.scales)]) or "none"

    def sizes(self, size: int) -> list[int]:
        """Sides of the views of photos at this size, pixels, mirror images apart."""
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
def embed_views(embedder: Embedder, views: Sequence[Tensor], flip: bool, jitter: Tensor | None = None
                ) -> NDArray[np.float32]:
    """float32 (n, D) at length 1: the sum over views v of e_v / |e_v|, scaled to length 1.

    views: the same n photos at different sizes, uint8 (n, H, W, 3) each. flip: their mirror images count as views too.
    jitter: of the photos' colors (n, K), see `prepare`.
    """
    total = torch.zeros((), device=views[0].device)
    for view in views:
        for images in (view, *([view.flip(2)] if flip else [])):
            total = total + F.normalize(embedder(images, jitter))
    return F.normalize(total).cpu().numpy()


# Options that several commands share.

def add_answer_options(parser: Parser) -> None:
    """Add the options that decide how photos are answered."""
    parser.add_argument("--pipeline", type=Path, metavar="YAML",
                        help="list of steps, as in configs/pipelines (default: the vote of the five nearest neighbors)")
    parser.refuse_renamed("--answers", "--pipeline")
    parser.add_argument("--ensemble", type=Path, nargs="+", default=[], metavar="RUN",
                        help="further runs, whose embeddings answer together with this one's")
    add_views(parser)


def pipeline_of(args: argparse.Namespace) -> Pipeline:
    """The pipeline that --pipeline names. Raises UserError for a file that holds none."""
    return read_pipeline(args.pipeline) if args.pipeline else Pipeline()


def add_views(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide how the network sees a photo."""
    parser.add_argument("--size", type=int, metavar="PIXELS",
                        help="side of the images (default: the run's train.size); larger ones first show what "
                             "view.side cuts off, then larger objects")
    parser.add_argument("--tta", type=read_tta, default=Tta(), metavar="VIEWS",
                        help="mean embedding of more views of each photo: flip and scales of the size, as in "
                             "flip,0.8,1.25 (default: none)")


def views_of(args: argparse.Namespace) -> Tta:
    """What --size and --tta ask for. Raises UserError for a size out of range."""
    if args.size is not None and not 1 <= args.size <= LARGEST:
        raise UserError(f"--size is {args.size}: give 1 to {LARGEST}")
    return replace(args.tta, size=args.size)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE",
                        help=f"the run's file to use (default: {checkpoint.NAME}, the latest; {checkpoint.BEST} is "
                             "there with train.best, others with train.keep)")


@dataclass
class RunModel:
    """A run's network, ready to embed."""

    embedder: Embedder
    trained_size: int
    """Side of the images that it was trained on at last, pixels."""
    view: View
    """How photos are framed at `size`."""
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

    @property
    def size(self) -> int:
        """Side of the images that it embeds, views at other scales apart, pixels."""
        return self.tta.size or self.trained_size

    @property
    def variant(self) -> str:
        """What tells its embeddings from those of the same weights at the run's own size and views: "" for these."""
        return ",".join([*([f"{self.size}px"] if self.size != self.trained_size else []),
                         *([self.tta.name] if self.tta.name != "none" else [])])

    @property
    def sizes_in_stores(self) -> tuple[int, ...]:
        """What stores of its embeddings may give as their size.

        Older versions gave none, 0, and showed the whole frame at the size of training.
        """
        return (self.size, 0) if self.size == self.trained_size and self.view.side == 1 else (self.size,)


def load_model(out: Path, name: str = checkpoint.NAME, tta: Tta = Tta(), device: str = "auto") -> RunModel:
    """The network of a checkpoint of the run; no other weights are needed.

    device: "cpu", "cuda", or "auto": as the run was trained, if this machine can. Raises UserError for a size that the
    backbone does not take, and a device that is not there.
    """
    saved = checkpoint.load(out, name)
    with checkpoint.fitting(out, name):
        model = _run_model(saved, checkpoint.fingerprint(out, name), tta, device, weights="none")
        model.embedder.load_state_dict(saved.best_weights.embedder)
        centers = _centers(saved, model.embedder.dim)
    _fit_sizes(model, saved, out)
    return replace(model, centers=centers)


def load_untrained(out: Path, tta: Tta = Tta()) -> RunModel:
    """What the run started from: the pretrained backbone, its map averaged or its tokens pooled as pretrained.

    GeM is worse here. Raises UserError for a size that the backbone does not take.
    """
    saved = checkpoint.load(out)
    with checkpoint.fitting(out):
        pooling = "avg" if form_of(saved.config["model"]["backbone"]).layout in ("NCHW", "NHWC") else "auto"
        model = _run_model(saved, UNTRAINED, tta, "auto", neck="none", dropout=0.0, pooling=pooling)
    _fit_sizes(model, saved, out)
    return model


def _check_weights(config: ModelConfig, size: int, weights: dict[str, Any]) -> None:
    """Raise ValueError unless they are those of this network, before it takes memory: on torch's meta device."""
    with torch.device("meta"):
        needed = {name: tuple(tensor.shape) for name, tensor in build_embedder(config, size=size).state_dict().items()}
    found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in weights.items()}
    if wrong := [name for name in {**needed, **found} if needed.get(name) != found.get(name)]:
        raise ValueError(f"{wrong[0]} is {found.get(wrong[0], 'missing')} and in this {config.backbone} "
                         f"{needed.get(wrong[0], 'missing')}")


def _centers(saved: checkpoint.Checkpoint, dim: int) -> NDArray[np.float32]:
    """The head's, (C, K, dim). Raises ValueError and others if they are not that."""
    weight = saved.best_weights.head["weight"]
    if not weight.is_floating_point() or weight.ndim != 2 or weight.shape[1] != dim:
        raise ValueError(f"the head's weight is {weight.dtype} of shape {tuple(weight.shape)}")
    centers: NDArray[np.float32] = weight.float().unflatten(0, (-1, saved.config["head"]["centers"])).numpy()
    return centers


def _check_packing(packing: dict[str, Any]) -> None:
    """Raise ValueError for options of packing that photos cannot be packed with."""
    for name, limit in (("short_side", math.inf), ("quality", 100), ("max_pixels", math.inf)):
        value = packing.get(name)
        if value is not None and not (type(value) is int and 1 <= value <= limit):
            raise ValueError(f"packing.{name} is {value}")


def _fit_sizes(model: RunModel, saved: checkpoint.Checkpoint, run: Path) -> None:
    """Fit the network to its images. Raise UserError for a size other than that of training that it does not take."""
    name = saved.config["model"]["backbone"]
    if model.size != model.trained_size:
        check_size(name, model.size)
        resize(model.embedder.backbone, name, model.trained_size, model.size)
    for size in model.tta.sizes(model.size)[1:]:
        try:
            with torch.inference_mode():
                model.embedder(torch.zeros(1, size, size, 3, dtype=torch.uint8, device=model.device))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a timm model raises
            raise UserError(f"the network of {run} cannot take images of {size} × {size} pixels "
                            f"({type(error).__name__}: {reason(error)}): leave the scale out of --tta") from error


def _run_model(saved: checkpoint.Checkpoint, fingerprint: str, tta: Tta, device_name: str, **changes: Any) -> RunModel:
    config = saved.config
    device = device_of(config["train"]["device"] if device_name == "auto" else device_name, device_name != "auto")
    model, trained_size = replace(ModelConfig(**config["model"]), **changes), config["train"]["size"]
    if not (type(trained_size) is int and 1 <= trained_size <= LARGEST):
        raise ValueError(f"train.size is {trained_size}")
    _check_packing(saved.packing)
    if fingerprint != UNTRAINED:
        _check_weights(model, trained_size, saved.best_weights.embedder)
    embedder, cache = build_embedder(model, size=trained_size).to(device).eval(), CacheConfig(**config.get("cache", {}))
    view = View(**config["view"]).in_evaluation((tta.size or trained_size) / trained_size)
    return RunModel(embedder, trained_size, view, saved.packing, saved.trained_on, cache, fingerprint, device, tta=tta)


def device_of(name: str, needed: bool) -> torch.device:
    """This process's CUDA device, or the CPU for "cpu" and where there is none. needed: that is a UserError."""
    if name == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if needed:
        raise UserError(f"device is {name!r}, and this machine has no CUDA device: give \"cpu\" or \"auto\"")
    return torch.device("cpu")
