"""BatchNorm for updates made of several micro-batches, or with frozen statistics.

Accumulation adds up gradients, but each micro-batch is still normalized by its own mean and variance (Ioffe and
Szegedy, "Batch Normalization", ICML 2015, algorithm 1): 8 × 32 images are not 256. What can be corrected is the running
average, which otherwise moves with each of k micro-batches and so forgets k times as fast.
"""
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batchnorms(module: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers in `module`, including timm's with an activation inside."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def momentum_of_part(momentum: float, parts: int) -> float:
    """The momentum with which `parts` steps of a running average forget as much as one: 1 - (1 - m)^(1/parts)."""
    return 1 - (1 - momentum) ** (1 / parts)


def correct_momentum(module: nn.Module, parts: int) -> None:
    """Make the running statistics move as far in `parts` micro-batches as they would in one batch; call it once."""
    for layer in batchnorms(module):
        if layer.momentum is not None:  # None averages over all batches: nothing to correct
            layer.momentum = momentum_of_part(layer.momentum, parts)


def freeze_statistics(module: nn.Module) -> None:
    """Normalize by the running statistics and do not update them; scale and shift still learn.

    `module.train()` undoes it.
    """
    for layer in batchnorms(module):
        layer.eval()


@torch.no_grad()
def estimate_statistics(layers: list[_BatchNorm], passes: Iterable[Any],
                        total: Callable[[Tensor], Tensor] = lambda sums: sums) -> None:
    """Set the layers' running mean and variance to those of all inputs that they get while `passes` is consumed.

    If all passes are equally large, that is as over one large batch; a running average lags behind the weights.
    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, section 3 (PreciseBN).

    total: sums over the ranks, float64 (n,) -> (n,).
    """
    sums = [torch.zeros(2 * layer.num_features + 1, dtype=torch.float64, device=layer.running_mean.device)
            for layer in layers if layer.running_mean is not None]
    hooks = [layer.register_forward_pre_hook(partial(_add_moments, of_layer)) for layer, of_layer in zip(layers, sums)]
    for _ in passes:
        pass
    for layer, of_layer, hook in zip(layers, sums, hooks):
        hook.remove()
        moments = total(of_layer)
        mean, square = (moments[:-1] / moments[-1]).chunk(2)
        layer.running_mean.copy_(mean)  # type: ignore[union-attr]
        layer.running_var.copy_(square - mean.square())  # type: ignore[union-attr]


def _add_moments(sums: Tensor, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Add mean and mean square of each channel of (B, C, ...), and 1 for the pass."""
    x = inputs[0].float()
    var, mean = (m.double() for m in torch.var_mean(x, [d for d in range(x.ndim) if d != 1], correction=0))
    sums += torch.cat([mean, var + mean.square(), mean.new_ones(1)])
