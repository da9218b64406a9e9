"""RUN/metrics.jsonl: one JSON object a line, averages over the steps since the line before."""
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from arcshard.console import UserError
from arcshard.distributed import World
from arcshard.files import write_text

NAME = "metrics.jsonl"


class MetricsLog:
    """Counts steps without waiting for the device; a line is the only synchronisation, and all ranks make it.

    Args:
        run: folder of the run.
        position: where the run continues; lines of steps after it, that a killed run left, are dropped.
    """

    def __init__(self, run: Path, position: int, world: World):
        self.path, self.world = run / NAME, world
        self.loss = float("nan")  # of the last line
        if world.is_main:
            kept = [line for line in read(run) if line["position"] <= position]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._restart()

    def count(self, loss: torch.Tensor, images: int, wait: float, replaced: int) -> None:
        """Take in one step of this rank; loss is a scalar on any device, wait is in seconds."""
        self._loss += loss.detach().double()
        self._steps += 1
        self._images += images
        self._wait += wait
        self._replaced += replaced

    def line(self, step: int, position: int, epoch: float, **values: float) -> None:
        """Write the averages since the line before. Raises UserError if the loss is not finite."""
        loss, images, replaced, wait_share = self.world.sum(
            float(self._loss) / self._steps, self._images, self._replaced, self._wait / self._seconds())
        self.loss = loss / self.world.size
        self.write(step=step, position=position, epoch=round(epoch, 4), loss=self.loss, **values,
                   images_per_s=images / self._seconds(), data_wait_share=wait_share / self.world.size,
                   replaced=int(replaced))
        if not self.loss < float("inf"):
            raise UserError(f"the loss must stay finite; it is {self.loss} at step {step}: lower train.lr or "
                            "head.margin and start again from the last checkpoint")
        self._restart()

    def write(self, **record: Any) -> None:
        """Append one object, on the main rank."""
        if self.world.is_main:
            with open(self.path, "a") as f:
                f.write(json.dumps(record) + "\n")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside (evaluation, a checkpoint) out of the rates."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _restart(self) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=self.world.device)
        self._steps, self._images, self._replaced = 0, 0, 0
        self._wait, self._began = 0.0, time.perf_counter()


def read(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that a kill cut short is left out."""
    path = run / NAME
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]
