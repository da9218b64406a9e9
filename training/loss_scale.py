"""The factor on a float16 run's losses, without which small gradients would be rounded to 0."""
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from arcshard.distributed import World

START, GROWTH, INTERVAL = 65536.0, 2.0, 2000  # of torch.amp.GradScaler


class LossScale:
    """Halved by an update that overflows, doubled after INTERVAL updates in a row that did not.

    torch.amp.GradScaler's rule (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2). Its class
    asks each rank's own gradients, of which a sharded head's differ; this one takes the decision that all ranks share.
    All is done on the device; all ranks must call `settle`.
    """

    def __init__(self, world: World):
        self.world = world
        self.value = torch.tensor(START, device=world.device)
        self.good = torch.tensor(0, device=world.device)  # updates in a row without overflow
        self.overflowed = torch.tensor(0, device=world.device)  # since `figures`

    def unscale(self, parameters: Iterable[Tensor]) -> None:
        """Divide the gradients by it."""
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / self.value)

    def settle(self, bad: Tensor, loss: Tensor) -> Tensor:
        """Adapt to an update; returns whether it is bad for another reason than overflow, bool scalar.

        bad: whether the gradient is not finite, alike on all ranks. Then it is overflow if every rank's loss is finite
        and there is a factor that could be lower.
        """
        finite = self.world.total((~loss.isfinite()).float()) == 0
        overflowed = bad & finite & (self.value > 1)
        self.good.copy_(torch.where(bad, 0, self.good + 1))
        grown = torch.where(self.good == INTERVAL, self.value * GROWTH, self.value)
        self.value.copy_(torch.where(overflowed, self.value / GROWTH, grown))
        self.good.remainder_(INTERVAL)
        self.overflowed += overflowed
        return bad & ~overflowed

    def figures(self) -> dict[str, float]:
        """For a line of the log: the factor, and how many updates were left out since the line before; waits."""
        figures = {"loss_scale": float(self.value), "overflowed": int(self.overflowed)}
        self.overflowed.zero_()
        return figures

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("value", "good", "overflowed")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)
