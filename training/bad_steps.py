"""Updates whose loss or gradient is not finite: noticed on the device, named at the next line of the log."""
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arcshard.console import UserError
from training.metrics_log import BAD, MetricsLog

PATIENCE = 20  # bad updates in a row that even "skip" does not outlast


class BadSteps:
    """The bad ones among the updates since the last `check`, which alone waits for the device.

    All ranks must note the same flags: a loss that is not finite on one rank makes the mean gradient so on all
    (`poison`).

    Args:
        log: where they are written down.
        loader: its stream, dataset and position tell which photos an update saw.
        policy: "stop" ends the run at the first one, "skip" counts it and goes on.
    """

    def __init__(self, log: MetricsLog, loader: Any, policy: Literal["stop", "skip"]):
        self.log, self.loader, self.policy = log, loader, policy
        self._flags: list[Tensor] = []
        self._in_a_row = 0

    def note(self, bad: Tensor) -> None:
        """Take in one update; bad: bool scalar on any device."""
        self._flags.append(bad)

    def check(self, step: int, position: int, **where: Any) -> None:
        """Write down the photos of each bad update. Raises UserError if the policy is to stop, or none is good.

        step, position: of the run after the latest update. where: further keys of the record.
        """
        flags = torch.stack(self._flags).tolist() if self._flags else []
        self._flags.clear()
        for ago, bad in zip(range(len(flags) - 1, -1, -1), flags):
            self._in_a_row = self._in_a_row + 1 if bad else 0
            if bad:
                self._record(step, position, ago, where)

    def _record(self, step: int, position: int, ago: int, where: dict[str, Any]) -> None:
        size, loader = self.loader.global_batch, self.loader
        end = loader.position - ago * size
        ids = loader.stream.sample_at(torch.arange(end - size, end).numpy())
        self.log.append(BAD, **where, step=step - ago, position=position - ago * size, ids=ids.tolist(),
                        keys=[key.decode() for key in loader.dataset.index[ids]["key"]])
        said = (f"the loss must stay finite, but it or its gradient was not in step {step - ago}, whose photos are the "
                f"last line of {self.log.run / BAD}")
        if self.policy == "stop":
            raise UserError(f"{said}: lower train.lr or head.margin, or leave such updates out with train.on_bad_loss "
                            "skip")
        if self._in_a_row == PATIENCE:
            raise UserError(f"{said}, as in the {PATIENCE - 1} before, which were left out: lower train.lr or "
                            "head.margin")


def poison(loss: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """What to begin the backward pass with: the scale, or NaN for a loss that is not finite."""
    return torch.where(loss.isfinite(), scale, torch.nan)


def float_buffers(module: nn.Module) -> list[Tensor]:
    """The module's running statistics, and constants that are buffers."""
    return [b for b in module.buffers() if b.is_floating_point() and b.numel()]


class KeptBuffers:
    """The module's running statistics, which a forward pass that overflows would spoil for good.

    `settle` takes them back where the step was bad, on the device.
    """

    def __init__(self, module: nn.Module):
        self._buffers = float_buffers(module)
        self.keep()

    def keep(self) -> None:
        """Count what they are now as good."""
        self._kept = self._flat()

    def settle(self, bad: Tensor) -> None:
        """Call it after each step; bad: bool scalar on the device."""
        if self._buffers:
            self._kept = torch.where(bad, self._kept, self._flat())
            values = self._kept.split([b.numel() for b in self._buffers])
            torch._foreach_copy_(self._buffers, [v.view_as(b) for v, b in zip(values, self._buffers)])

    def _flat(self) -> Tensor:
        return torch.cat([b.flatten() for b in self._buffers]) if self._buffers else torch.zeros(0)
