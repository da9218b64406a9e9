"""Pooling: a map, or the patch tokens of a transformer, -> one vector for each image."""
import torch
from torch import Tensor, nn

from arcshard.fields import check

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


def make_pooling(kind: str) -> nn.Module:
    """What pools the positions of model.pooling `kind`; for those that pool none (cls, auto) it is never called."""
    if kind in ("cls", "auto"):
        return nn.Identity()
    return GeM(learned=kind == "gem") if kind.startswith("gem") else Average()
