"""D2-MetricLearning's faults of the input and of what learns, put around the product's network."""
from typing import Any

import torch
from convergence_arms import Faults
from torch import Tensor, nn

from model.embedder import Embedder

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # detectron2's, for pixels in 0..255


def put_in(faults: Faults, embedder: Embedder) -> None:
    """Change what the network is given, and stop what shall not learn."""
    if faults.double_normalization:
        embedder.mean, embedder.std = normalized_twice(embedder.mean, embedder.std)
    if faults.bgr:
        embedder.register_forward_pre_hook(_reversed_channels)
    frozen_part(faults, embedder).requires_grad_(False)


def normalized_twice(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """What ((x − mean) / std − PIXEL_MEAN) / PIXEL_STD takes from pixel values x in 0..1, and divides by; (3,) each."""
    return mean + std * torch.tensor(PIXEL_MEAN), std * torch.tensor(PIXEL_STD)


def frozen_part(faults: Faults, embedder: Embedder) -> nn.Module:
    """Of an EfficientNet, stem and stages down to a quarter of the side; nothing without the fault."""
    backbone: Any = embedder.backbone
    if not faults.frozen_stem:
        return nn.ModuleList()
    return nn.ModuleList([backbone.conv_stem, backbone.bn1, backbone.blocks[0], backbone.blocks[1]])


def _reversed_channels(embedder: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    images, jitter = inputs
    return images.flip(-1), jitter
