"""An average of the weights over the last images seen: usually better than the weights themselves."""
import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
SHARE = 0.1  # of the images seen so far that the half-life may not exceed


def decay(images: int, position: int, half_life: float) -> float:
    """What is kept of the average over an update of so many images that ends at `position`; in [0, 1).

    A weight of `half_life` images ago counts half. Early on the half-life is a share of what was seen, so that the
    first weights are forgotten (the power function of Karras et al., "Analyzing and improving the training dynamics of
    diffusion models", CVPR 2024, section 3.1). Two updates forget as much as one of both their images.
    """
    turn = half_life / SHARE  # position from which the half-life is constant
    start = position - images
    early = min(start, turn) / min(position, turn)
    return early ** (math.log(2) / SHARE) * 0.5 ** (max(0.0, position - max(start, turn)) / half_life)


class AveragedWeights(Generic[M]):
    """A copy of a module whose weights and running statistics follow it slowly; `module` is what to evaluate.

    Args:
        module: what is trained; its weights at the beginning are the first average.
        half_life: in images.
    """

    def __init__(self, module: M, half_life: float):
        self.half_life = half_life
        self.module: M = copy.deepcopy(module).requires_grad_(False).eval()
        pairs = list(zip(self.module.state_dict().values(), module.state_dict().values()))
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, images: int, position: int) -> None:
        """Follow an update of so many images, after which so many have been seen."""
        averages, weights = map(list, zip(*self._floats))
        torch._foreach_lerp_(averages, weights, 1 - decay(images, position, self.half_life))
        if self._counters:  # BatchNorm's, 53 in a ResNet-50
            averages, counts = map(list, zip(*self._counters))
            torch._foreach_copy_(averages, counts)
