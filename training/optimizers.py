"""The optimizer of a training step's parameters, which can leave out an update without asking the device."""
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.clipping import clip_grad_norm
from training.train_config import TrainConfig


def build_optimizer(module: nn.Module, backbone: nn.Module, c: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over `parameter_groups`, fused: its `found_inf` then leaves out an update, see `step_unless`."""
    groups = parameter_groups(module, backbone, c)
    if c.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(c.momentum, 0.999), fused=True)
    optimizer = torch.optim.SGD(groups, momentum=c.momentum, nesterov=c.momentum > 0, fused=True)
    if c.momentum:  # from zero it moves as torch's own does, and is there if the first update is left out
        for group in optimizer.param_groups:
            for p in group["params"]:
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def parameter_groups(module: nn.Module, backbone: nn.Module, c: TrainConfig) -> list[dict[str, Any]]:
    """Four groups: backbone or not, weight decay (matrices and kernels) or none (biases, normalisation, GeM)."""
    of_backbone = {id(p) for p in backbone.parameters()}
    rest = [p for p in module.parameters() if id(p) not in of_backbone]
    return [{"params": [p for p in parameters if p.requires_grad and (p.ndim > 1) == decays], "lr": c.lr * share,
             "lr_share": share, "weight_decay": c.weight_decay if decays else 0.0}
            for share, parameters in ((c.backbone_lr, list(backbone.parameters())), (1.0, rest))
            for decays in (True, False)]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_share"]


def step_unless(bad: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Update, or change nothing where `bad` (bool scalar on the parameters' device) is true; then forget the gradients.

    The same door of torch's fused optimizers that its GradScaler uses: the kernel reads the flag, the host need not.
    """
    optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def clip(parameters: Iterable[Tensor], spread: Sequence[Tensor], norm: float) -> Tensor:
    """clip_grad_norm; returns whether the gradients are not finite, a bool scalar on the device, alike on all ranks."""
    return ~clip_grad_norm(parameters, spread, norm).isfinite()
