"""Pooled features -> embedding."""
from torch import nn

NECKS = ("bn", "bn-prelu", "swish", "none")


def make_neck(kind: str, in_features: int, dim: int) -> nn.Module:
    """Linear(in_features, dim), then what `kind` says; "none" passes the pooled features on.

    "bn": BatchNorm, as 2nd place 2020. "bn-prelu": BatchNorm and PReLU, as 1st place (their "option D").
    "swish": x·sigmoid(x), as 3rd place.
    """
    if kind == "none":
        return nn.Identity()
    linear = nn.Linear(in_features, dim)
    match kind:
        case "bn":
            return nn.Sequential(linear, nn.BatchNorm1d(dim))
        case "bn-prelu":
            return nn.Sequential(linear, nn.BatchNorm1d(dim), nn.PReLU())
        case "swish":
            return nn.Sequential(linear, nn.SiLU())
    raise ValueError(f"neck must be one of {', '.join(NECKS)}; got {kind!r}")
