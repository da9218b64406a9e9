"""Necks: pooled features -> embedding."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

NECKS = ("bn", "bn-prelu", "swish", "ln", "linear", "none")


def make_neck(kind: str, in_features: int, dim: int, bias: bool = True) -> nn.Module:
    """Linear(in_features, dim), with a bias or without, then what `kind` says; "none": neither.

    "bn": BatchNorm, as the 2nd place 2020. "bn-prelu": BatchNorm and PReLU, as the 1st place (their "option D").
    "swish": x·sigmoid(x), as the 3rd place. "ln": LayerNorm. "linear": nothing, as most of 2022.
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
        case "ln":
            return nn.Sequential(linear, nn.LayerNorm(dim))
        case "linear":
            return linear
    raise ValueError(f"there is no neck {kind!r}: give one of {', '.join(NECKS)}")


class WithPca(nn.Module):
    """A neck's output and PCA of the same pooled features, each at length 1, one after the other, at length 1 again.

    share: of the squared length that is PCA's; a cosine is the mean of both cosines with these weights.
    """

    def __init__(self, neck: nn.Module, in_features: int, dim: int, share: float):
        super().__init__()
        self.neck, self.share = neck, share
        self.pca = nn.Linear(in_features, dim)

    def forward(self, pooled: Tensor) -> Tensor:
        learned, components = F.normalize(self.neck(pooled)), F.normalize(self.pca(pooled))
        return torch.cat([learned * (1 - self.share) ** 0.5, components * self.share ** 0.5], 1)
