"""Margin heads: (embeddings, labels) -> mean loss, in float32 whatever the autocast around them.

Shape suffixes: B batch (this rank), D embedding, C classes, K centres a class.
"""
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.margins import add_angle, subtract
from model.no_logits import no_logits_loss


def check_scale(scale: float) -> None:
    """Raise ValueError unless scale > 0."""
    if scale <= 0:
        raise ValueError(f"scale must be positive; got {scale}")


class MarginHead(nn.Module):
    """Softmax over cosines × scale, in which the cosine of the true class is made worse by a margin.

    Subclasses say how, in `moved`. The state holds `weight` alone, the centres (C·K, D): class c has rows
    c·K … c·K+K-1.

    Args:
        dim: embedding size D.
        num_classes: C.
        scale: multiplies every cosine; the softmax's temperature is 1 / scale.
        margin: see the subclass; `set_margin` changes it between steps.
        centers: K; a class's cosine is that of its nearest centre (Deng et al., "Sub-center ArcFace", ECCV 2020).
        smoothing: part in [0, 1) of a photo's true probability that is spread evenly over all classes.
        margin_factors: (C,): class c has margin × factor; None: all have the same.
        class_weights: (C,): what a photo of class c counts in the mean; None: all the same.
    """

    margin: Tensor
    margin_factors: Tensor | None
    class_weights: Tensor | None

    def __init__(self, dim: int, num_classes: int, scale: float = 45.0, margin: float = 0.3, centers: int = 1,
                 smoothing: float = 0.0, margin_factors: Tensor | None = None, class_weights: Tensor | None = None):
        super().__init__()
        check_scale(scale)
        self.check_margin(margin)
        self.scale, self.centers, self.smoothing = scale, centers, smoothing
        self.weight = nn.Parameter(torch.empty(num_classes * centers, dim))
        nn.init.xavier_uniform_(self.weight)
        # A tensor, so that a schedule neither recompiles the step nor waits for the device.
        self.register_buffer("margin", torch.tensor(float(margin)), persistent=False)
        self.register_buffer("margin_factors", margin_factors, persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    @staticmethod
    def check_margin(margin: float) -> None:
        """Raise ValueError unless the margin is an angle in [0, π/2)."""
        if not 0 <= margin < math.pi / 2:
            raise ValueError(f"margin is an angle in radians, 0 <= margin < pi/2; got {margin}")

    def moved(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        """What stands for the true classes' cosines, and its derivative by them (model/margins.py)."""
        raise NotImplementedError

    def set_margin(self, margin: float) -> None:
        """Use `margin` from the next call on."""
        self.check_margin(margin)
        self.margin.fill_(margin)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosines to the classes' nearest centres, float32 (B, C), rounded into [-1, 1]."""
        with torch.autocast(embeddings.device.type, enabled=False):
            cos = F.linear(F.normalize(embeddings.float()), F.normalize(self.weight.float())).clamp(-1, 1)
            return cos if self.centers == 1 else cos.unflatten(1, (-1, self.centers)).amax(2)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Cosines × scale without a margin, float32 (B, C): what to rank classes by."""
        return self.cosines(embeddings) * self.scale

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy, float32 scalar. embeddings (B, D) of any scale; labels int64 (B,) in [0, C)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            x_BD = embeddings.float()
            unit_BD, weight = F.normalize(x_BD), self.weight.float().unflatten(0, (-1, self.centers))
            with torch.no_grad():
                cos_BK = torch.einsum("bd,bkd->bk", unit_BD, F.normalize(weight[labels], dim=2))
                targets = self.moved(cos_BK.amax(1).clamp(-1, 1), self._margins(labels), x_BD.norm(dim=1))
                shares_B = torch.full_like(targets[0], 1 / len(labels))
                if self.class_weights is not None:
                    shares_B = shares_B * self.class_weights[labels]
            return no_logits_loss(unit_BD, weight, labels, targets, shares_B, self.scale, self.smoothing)

    def cost_of_one(self, images_C: Tensor | np.ndarray) -> float:
        """What the margin takes from a cosine of 1, on average over the images, of which class c has images_C[c]."""
        images_C = torch.as_tensor(images_C, device=self.margin.device)
        cost_C = 1 - self.target_of_one(self._margins(torch.arange(len(images_C))).expand(len(images_C)))
        return float((cost_C * images_C).sum() / images_C.sum())

    def target_of_one(self, margin_C: Tensor) -> Tensor:
        """What stands for a cosine of 1 under each margin."""
        ones = torch.ones_like(margin_C)
        return self.moved(ones, margin_C, ones)[0]

    def _margins(self, labels: Tensor) -> Tensor:
        return self.margin if self.margin_factors is None else self.margin * self.margin_factors[labels]


class ArcFace(MarginHead):
    """The true class is pushed `margin` radians away, in [0, π/2): model/margins.py, add_angle."""

    def moved(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        return add_angle(cos_B, margin_B)


class CosFace(MarginHead):
    """`margin` in [0, 1] is taken from the true class's cosine: model/margins.py, subtract."""

    @staticmethod
    def check_margin(margin: float) -> None:
        """Raise ValueError unless the margin is in [0, 1]."""
        if not 0 <= margin <= 1:
            raise ValueError(f"a margin taken from a cosine lies in [0, 1]; got {margin}")

    def moved(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        return subtract(cos_B, margin_B)
