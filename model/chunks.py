"""A chunk of the loss without logits: from cosines × scale to losses and their derivatives.

Shape suffixes: N rows, C this rank's classes, K centres a class.
"""
from typing import NamedTuple

import torch
from torch import Tensor

from model.shard import Shard


class Own(NamedTuple):
    """Where in (C, N) each row's true class stands, if it is one of this rank's."""

    labels_1N: Tensor
    held_N: Tensor

    def put(self, matrix_CN: Tensor, values_N: Tensor | float) -> None:
        """Write the values into these places; rows of another rank's classes stay."""
        if isinstance(values_N, Tensor):  # a number stays one: as a tensor it would be copied, and the host would wait
            values_N = values_N.to(matrix_CN.dtype)
        before = matrix_CN.gather(0, self.labels_1N)
        matrix_CN.scatter_(0, self.labels_1N, torch.where(self.held_N, values_N, before))


def nearest_centres(dots: Tensor, centers: int) -> tuple[Tensor, Tensor | None]:
    """(C·K, N) -> each class's highest (C, N), and which centre has it, the first of equals: uint8 (C, N)."""
    if centers == 1:
        return dots, None
    of_centre = dots.unflatten(0, (-1, centers)).unbind(1)
    best = of_centre[0].clone()
    nearest = torch.zeros_like(best, dtype=torch.uint8)
    for number, other in enumerate(of_centre[1:], start=1):
        nearest.masked_fill_(other > best, number)
        torch.maximum(best, other, out=best)
    return best, nearest


def to_centres(pull: Tensor, nearest: Tensor | None, dots: Tensor) -> Tensor:
    """(C, N) -> (C·K, N), written over `dots`: the nearest centre feels it, the others nothing."""
    if nearest is not None:
        for number, of_centre in enumerate(dots.unflatten(0, (len(pull), -1)).unbind(1)):
            of_centre.copy_(pull * (nearest == number))
    return dots


def cross_entropy(logits_CN: Tensor, own: Own, target_N: Tensor, smoothing: float, shard: Shard
                  ) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their derivatives by the true classes' logits (N,); those by the others replace `logits_CN`.

    The truth's own logit is left out and `target_N` added last: correcting a sum that has it would cancel.
    """
    if smoothing:
        own.put(logits_CN, 0.0)
        others_N = shard.sum(logits_CN.sum(0))
    own.put(logits_CN, -torch.inf)
    most_N = logits_CN.amax(0).clamp_min(torch.finfo(logits_CN.dtype).min)  # -inf where there is no other class
    rest_N = logits_CN.sub_(most_N).exp_().sum(0).log() + most_N
    rest_N = shard.gather(rest_N[None]).logsumexp(0)
    loss_N = torch.logaddexp(rest_N - target_N, torch.zeros_like(rest_N))
    pull_N = torch.expm1(-loss_N)  # probability - 1
    logits_CN.mul_((most_N - target_N - loss_N).exp())
    if smoothing:
        each = smoothing / shard.num_classes
        logits_CN.sub_(each)
        pull_N = pull_N + smoothing - each
        loss_N = loss_N + smoothing * target_N - each * (others_N + target_N)
    return loss_N, pull_N


def focal(loss_N: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """(1 - exp(-L))^power · L, and its derivative by L."""
    if not power:
        return loss_N, torch.ones_like(loss_N)
    missed_N = -torch.expm1(-loss_N)  # 1 - probability of the truth
    weaker_N = missed_N.pow(power - 1)
    return missed_N * weaker_N * loss_N, weaker_N * (missed_N + power * (1 - missed_N) * loss_N)
