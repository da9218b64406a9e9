"""BatchNorm when one update is made of several micro-batches, or shall not learn statistics at all.

Accumulation adds up gradients, but each micro-batch is still normalised by its own mean and variance (Ioffe and
Szegedy, "Batch Normalization", ICML 2015, algorithm 1): 8 × 32 images are not 256. What can be mended is the running
average, which otherwise moves once a micro-batch and so forgets k times as fast.
"""
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batchnorms(module: nn.Module) -> list[_BatchNorm]:
    """All BatchNorm layers in `module`, timm's with an activation inside among them."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def momentum_of_part(momentum: float, parts: int) -> float:
    """What makes `parts` steps of a running average forget as much as one: 1 - (1 - m)^(1/parts), m in [0, 1]."""
    return 1 - (1 - momentum) ** (1 / parts)


def correct_momentum(module: nn.Module, parts: int) -> None:
    """Let the running statistics move as far in `parts` micro-batches as they would in one batch; call it once."""
    for layer in batchnorms(module):
        if layer.momentum is not None:  # None averages over all batches: nothing to correct
            layer.momentum = momentum_of_part(layer.momentum, parts)


def hold_statistics(module: nn.Module) -> None:
    """Normalise by the running statistics and leave them as they are; scale and shift still learn.

    `module.train()` undoes it.
    """
    for layer in batchnorms(module):
        layer.eval()
