"""Margin heads: (embeddings, labels) -> mean loss, in float32 whatever the autocast around them.

Shape suffixes: B batch (this rank), D embedding, C classes.
"""
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def check_scale_and_margin(scale: float, margin: float) -> None:
    """Raise ValueError unless scale > 0 and margin is an angle in [0, π/2)."""
    if scale <= 0:
        raise ValueError(f"scale must be positive; got {scale}")
    if not 0 <= margin < math.pi / 2:
        raise ValueError(f"margin is an angle in radians, 0 <= margin < pi/2; got {margin}")


class ArcFace(nn.Module):
    """Softmax over cosines × scale, with the true class pushed `margin` radians away.

    Source: Deng et al., "ArcFace: Additive angular margin loss for deep face recognition", CVPR 2019, eq. 3.
    Past θ = π − margin the target logit continues as cos θ − margin·sin margin, so that it never turns back up.

    Args:
        dim: embedding size D.
        num_classes: C.
        scale: multiplies every cosine; the softmax's temperature is 1 / scale.
        margin: radians in [0, π/2); `set_margin` changes it between steps.
    """

    margin: Tensor

    def __init__(self, dim: int, num_classes: int, scale: float = 45.0, margin: float = 0.3):
        super().__init__()
        check_scale_and_margin(scale, margin)
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        nn.init.xavier_uniform_(self.weight)
        # A tensor, so that a schedule neither recompiles the step nor waits for the device.
        self.register_buffer("margin", torch.tensor(float(margin)), persistent=False)

    def set_margin(self, margin: float) -> None:
        """Use `margin` radians from the next call on."""
        check_scale_and_margin(self.scale, margin)
        self.margin.fill_(margin)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosines to the class centres, float32 (B, C), rounded into [-1, 1]."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.linear(F.normalize(embeddings.float()), F.normalize(self.weight.float())).clamp(-1, 1)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Cosines × scale without a margin, float32 (B, C): what to rank classes by."""
        return self.cosines(embeddings) * self.scale

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy, float32 scalar. embeddings (B, D) of any scale; labels int64 (B,) in [0, C)."""
        cos_BC = self.cosines(embeddings)
        target_B1 = _add_margin(cos_BC.gather(1, labels[:, None]), self.margin)
        return F.cross_entropy(cos_BC.scatter(1, labels[:, None], target_B1) * self.scale, labels)


def _add_margin(cos: Tensor, margin: Tensor) -> Tensor:
    """cos(θ + margin) of cos θ, continued as a line where θ + margin > π; the gradient is finite at cos θ = ±1."""
    sin = (1 - cos.square()).clamp_min(1e-9).sqrt()  # d sin / d cos is infinite at ±1, and 0 where clamped
    added = cos * margin.cos() - sin * margin.sin()
    return torch.where(cos > -margin.cos(), added, cos - margin * margin.sin())
