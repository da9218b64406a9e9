"""Feature map -> one vector an image."""
import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalised mean over positions: (mean x^p)^(1/p), p = 1 the average, p -> infinity the maximum.

    Source: Radenović, Tolias, Chum, "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019, eq. 3.
    Input (B, C, H, W), clamped to at least 1e-6; output (B, C) in the input's dtype, computed in float32.
    """

    def __init__(self, p: float = 3.0, learned: bool = True):
        super().__init__()
        if p <= 0:
            raise ValueError(f"GeM's exponent p must be positive; got {p}")
        self.p = nn.Parameter(torch.tensor(float(p)), requires_grad=learned)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # x^p overflows half precision
            return x.float().clamp_min(1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p).to(x.dtype)


class Average(nn.Module):
    """Mean over positions: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))
