"""The gradient's norm, kept small, where some parameters are spread over the ranks."""
from collections.abc import Iterable, Sequence

import torch.distributed as dist
from torch import Tensor, nn


def clip_grad_norm(parameters: Iterable[Tensor], spread: Sequence[Tensor], norm: float) -> Tensor:
    """Scale the gradients so that together they have at most this norm; returns the norm before, on the device.

    spread: those of the parameters of which each rank holds a part, with the gradient of that part: their squares are
    added up over the ranks, which must all call. Without any it is torch's clip_grad_norm_, bit for bit.
    """
    if not spread:
        return nn.utils.clip_grad_norm_(parameters, norm)
    parameters = list(parameters)
    same = [p for p in parameters if not any(p is s for s in spread)]
    squares = _norm(spread).square()
    dist.all_reduce(squares)
    total = (squares + _norm(same).square()).sqrt()
    nn.utils.clip_grads_with_norm_(parameters, norm, total)
    return total


def _norm(parameters: Sequence[Tensor]) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
