"""The head's options, and its builder."""
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from arcshard.distributed import World
from arcshard.fields import RUNTIME, check
from model.heads import AdaFace, ArcFace, CosFace, MarginHead, check_scale
from model.margins import fixed_adacos_scale, log_weights, power_margins, range_margins
from model.sharding import ClassShard

HEADS: dict[str, type[MarginHead]] = {"arcface": ArcFace, "cosface": CosFace, "adaface": AdaFace}


@dataclass(frozen=True)
class HeadConfig:
    """The margin head."""

    kind: Literal["arcface", "cosface", "adaface"] = "arcface"
    """Where the margin acts: on the angle, on the cosine, or on both, depending on the embedding's norm."""
    scale: float | Literal["auto"] = 45.0
    """Multiplies every cosine (1st place 2020: 45, 2nd: 30, 3rd: 80); auto: sqrt(2) ln(C - 1), the fixed AdaCos."""
    learn_scale: bool = False
    """Learn the scale, starting from `scale`."""
    margin: float = 0.3
    """Margin between a class and the rest after the warm-up: radians (1st place: 0.3 to 0.4), for cosface a cosine."""
    margin_warmup: float = 0.0
    """Share of the run over which the margin rises linearly from margin_start."""
    margin_start: float = 0.0
    """Margin at the beginning of its warm-up."""
    margin_by_epoch: bool = False
    """Raise the margin only where an epoch begins (2nd place, Universal Image Embedding 2022: 0.3, 0.4, … 0.8)."""
    margin_grad: Literal["exact", "straight-through"] = "exact"
    """straight-through: the margin changes the loss, but the gradient by the true cosine is computed as if the target
    were the cosine itself (insightface)."""
    easy_margin: bool = False
    """For arcface: no margin if the true class is more than 90 degrees away (D2-MetricLearning's exp7)."""
    centers: int = 1
    """Number of centers of a class, of which the nearest counts (3rd place: 3)."""
    init: Literal["xavier", "uniform", "means"] = "xavier"
    """Where new centers start. xavier: short, by Xavier's rule, which depends on the number of classes (1st place); the
    shorter a center, the further a step turns it; uniform: every number uniform in ±1/sqrt(dim), a norm of 0.58 for any
    number of classes (3rd place; 1st 2021); means: as xavier, but each class's first center at the mean of its photos'
    embeddings before training, which takes a pass over them. Centers that a stage keeps or remaps stay. With random
    weights and a large scale, means led to collapse (docs/arcface-convergence.md)."""
    init_images: int | None = None
    """Number of images in that pass, if init is means; null: an epoch."""
    class_size_margin: Literal["none", "power", "range"] = "none"
    """Margin of a class of n images. power: margin n^-size_power + least_margin; range: the same law stretched, from
    margin for the smallest class to least_margin for the largest (3rd place, with margin 0.5)."""
    least_margin: float = 0.05
    """Margin of the largest classes, if class_size_margin is not none."""
    size_power: float = 0.25
    """How fast the margin falls with a class's size, if class_size_margin is not none."""
    smoothing: float = 0.0
    """Part of a photo's true probability that is spread over all classes (2nd place: 0.1)."""
    class_weights: Literal["none", "log"] = "none"
    """log: a photo has weight 1 / ln(1 + n), n being the number of images of its class (1st place)."""
    focal: float = 0.0
    """A photo's loss L is weighted by (1 - exp(-L))^focal, so that easy photos count less; 0, or at least 1 (usual: 2).
    """
    sharded: bool = field(default=False, metadata=RUNTIME)
    """Each rank holds only its part of the classes, for so many that weight, momentum and gradient of the head do not
    fit on one GPU. The result is the same; checkpoints hold the whole head."""
    negatives: float = 1.0
    """Share of the classes that take part in a step, always including the batch's own, drawn anew for each step
    (PartialFC: 0.1)."""

    def __post_init__(self) -> None:
        if self.scale != "auto":
            check_scale(float(self.scale))
        HEADS[self.kind].check_margin(self.margin)
        self._check(0 <= self.margin_start <= self.margin, "margin_start",
                    f"give 0 or more, at most head.margin, which is {self.margin:g}")
        self._check(0 <= self.margin_warmup <= 1, "margin_warmup", "give a share of the run from 0 to 1")
        self._check(self.centers > 0, "centers", "give 1 or more")
        self._check(self.init_images is None or self.init_images > 0, "init_images",
                    "give 1 or more, or null for an epoch")
        self._check(0 <= self.smoothing < 1, "smoothing", "give 0 or more, below 1")
        self._check(self.focal == 0 or 1 <= self.focal < math.inf, "focal", "give 0, or 1 or more")
        self._check(0 < self.negatives <= 1, "negatives", "give a share of the classes above 0, at most 1")
        self._check(0 < self.size_power < math.inf, "size_power", "give a positive number")
        self._check(0 <= self.least_margin < math.inf, "least_margin", "give 0 or more")
        if self.easy_margin and self.kind != "arcface":
            raise ValueError(f"head.easy_margin does not go with head.kind {self.kind}: use arcface, or leave it out")
        if self.class_size_margin != "none":
            self._check(self.margin > 0, "margin", "give a positive number, as head.class_size_margin needs it")
            self._check(self.least_margin <= self.margin, "least_margin",
                        f"give at most head.margin, which is {self.margin}")
        if self.class_size_margin == "power":
            HEADS[self.kind].check_margin(self.margin + self.least_margin)  # that of a class of one image

    @property
    def needs_sizes(self) -> bool:
        """Whether the head depends on the number of images of each class."""
        return self.class_size_margin != "none" or self.class_weights != "none"

    def _check(self, fits: bool, name: str, remedy: str) -> None:
        check(fits, f"head.{name}", getattr(self, name), remedy)


def build_head(config: HeadConfig, dim: int, num_classes: int,
               class_sizes: np.ndarray | Sequence[int] | None = None, world: World | None = None) -> MarginHead:
    """The head of `config` for embeddings of size `dim`.

    class_sizes: number of training images of each class (C,). world: the ranks of a sharded head. Raises ValueError if
    the sizes are needed and missing, or not one for each class; UserError if there are fewer classes than ranks.
    """
    options: dict[str, Any] = {
        "focal": config.focal, "learn_scale": config.learn_scale, "negatives": config.negatives,
        "straight_through": config.margin_grad == "straight-through", "uniform": config.init == "uniform"}
    if config.kind == "arcface":
        options["easy"] = config.easy_margin
    if config.sharded and world:
        options["shard"] = ClassShard(num_classes, world.rank, world.size)
    if config.needs_sizes:
        if class_sizes is None or len(class_sizes) != num_classes:
            found = "missing" if class_sizes is None else f"of {len(class_sizes)} classes instead of {num_classes}"
            raise ValueError(f"class_sizes is {found}: give the number of images of each class, which "
                             "head.class_size_margin and head.class_weights need")
        options |= _options_of_sizes(config, torch.as_tensor(class_sizes))
    scale = fixed_adacos_scale(num_classes) if config.scale == "auto" else float(config.scale)
    return HEADS[config.kind](dim, num_classes, scale, config.margin, config.centers, config.smoothing, **options)


def _options_of_sizes(config: HeadConfig, sizes: Tensor) -> dict[str, Tensor | None]:
    """Margins as multiples of config.margin, so that a schedule moves all at once; and weights."""
    margins = {"none": None, "power": power_margins, "range": range_margins}[config.class_size_margin]
    factors = margins and margins(sizes, config.margin, config.least_margin, config.size_power) / config.margin
    return {"margin_factors": factors, "class_weights": log_weights(sizes) if config.class_weights == "log" else None}
