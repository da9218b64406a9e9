"""AdaFace: a margin that spares hard photos of low quality, which the norm of the embedding tells."""
from typing import Any

import torch
from torch import Tensor

from model.heads import MarginHead
from model.margins import adapt

NORMS = (0.001, 100.0)  # norms count as within these bounds
START = (20.0, 100.0)  # mean and deviation before the first batch
SHARE = 0.01  # of a batch in the running mean and deviation
CONCENTRATION = 0.333  # h: how many deviations make a quality of 1, inverted


class AdaFace(MarginHead):
    """Target cos(θ − margin·quality) − margin·(1 + quality), quality being the norm's standing among recent norms.

    margin in [0, π/2). The state also holds the running `norm_mean` and `norm_std`: each rank counts its own batches,
    and `statistics` are there for rank 0's to be handed out before each update; the ranks of a sharded head count all
    batches. They move in training alone, before use.
    Source: Kim et al., CVPR 2022, with the constants of mk-minchul/AdaFace, head.py.
    """

    norm_mean: Tensor
    norm_std: Tensor

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.register_buffer("norm_mean", torch.tensor(START[0]))
        self.register_buffer("norm_std", torch.tensor(START[1]))

    @property
    def statistics(self) -> list[Tensor]:
        return [self.norm_mean, self.norm_std]

    def moved(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        norm_B = norm_B.clamp(*NORMS)
        if self.training:
            self.norm_mean.lerp_(norm_B.mean(), SHARE)
            self.norm_std.lerp_(norm_B.std(correction=min(1, len(norm_B) - 1)), SHARE)  # one photo deviates by 0
        standing = (norm_B - self.norm_mean) / (self.norm_std + 1e-3)
        return adapt(cos_B, margin_B, (CONCENTRATION * standing).clamp(-1, 1))

    def target_of_one(self, margin_C: Tensor) -> Tensor:
        """That of a photo of middling quality."""
        return adapt(torch.ones_like(margin_C), margin_C, torch.zeros_like(margin_C))[0]
