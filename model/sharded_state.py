"""A sharded head in training: its optimizer's state is whole in a checkpoint, so that any number of ranks can go on
from it, and DDP leaves its weight alone."""
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.heads import MarginHead


def whole_state(optimizer: torch.optim.Optimizer, head: MarginHead) -> dict[str, Any]:
    """optimizer.state_dict() as if one rank held all the centres; all ranks must ask."""
    return _changed(optimizer.state_dict(), optimizer, head, head.shard.whole)


def own_state(state: dict[str, Any], optimizer: torch.optim.Optimizer, head: MarginHead) -> dict[str, Any]:
    """What this rank needs of a `whole_state`, for optimizer.load_state_dict."""
    return _changed(state, optimizer, head, head.shard.own)


def keep_out_of_ddp(module: nn.Module, spread: Sequence[Tensor]) -> None:
    """Let DDP neither send around nor average these parameters of `module`; call it before wrapping."""
    names = [name for name, p in module.named_parameters() if any(p is s for s in spread)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)


def _changed(state: dict[str, Any], optimizer: torch.optim.Optimizer, head: MarginHead,
             change: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    """With what the optimizer keeps for each of the head's centres changed."""
    order = [id(p) for group in optimizer.param_groups for p in group["params"]]
    number = order.index(id(head.weight))
    if head.shard.size == 1 or number not in state["state"]:
        return state
    kept = {name: change(value) if isinstance(value, Tensor) and value.ndim == head.weight.ndim else value
            for name, value in state["state"][number].items()}
    return {**state, "state": {**state["state"], number: kept}}
