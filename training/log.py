"""RUN/metrics.jsonl, RUN/validation.jsonl and RUN/bad-batches.jsonl: one JSON object a line."""
import importlib
import json
import math
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from arcshard.console import UserError
from arcshard.distributed import World
from arcshard.files import report_full_disk, write_text
from arcshard.memory import memory_mb
from arcshard.untrusted import parse_json
from loader import Batch, DeviceWait
from shards.format import key_text

NAME = "metrics.jsonl"
VALIDATION = "validation.jsonl"
BAD = "bad-batches.jsonl"
RENAMED = {"nearest_centre": "nearest_center", "dead_centres": "dead_centers"}  # keys in logs of older versions

Sink = Callable[[str, dict[str, Any]], None]
"""Takes a log's name and a line of it."""


class MetricsLog:
    """Averages over the steps since the line before, counted without waiting for the device.

    `line` and `state_dict` wait for it and talk to the other ranks: all ranks must call them.

    Args:
        run: folder of the run.
        state: `state_dict` of the checkpoint that it continues from, so that lines cover the same steps.
    """

    def __init__(self, run: Path, world: World, state: dict[str, float] | None = None):
        self.run, self.world, self.position = run, world, 0
        self.lines = 0  # written by this object
        self.loss = self.wait_share = self.images_per_s = math.nan  # of the last line; on CUDA, what the device waited
        self.sinks: list[Sink] = []  # that get each line as well, on the main rank
        self._restart()
        if state:
            self._loss += state["loss"]
            self._steps = int(state["steps"])
            self._skipped += int(state["skipped"])

    def truncate_after(self, position: int) -> None:
        """Drop the lines beyond `position`, images of the run, left by a killed process; this one continues there."""
        self.position = position
        for name in (NAME, VALIDATION, BAD) if self.world.is_main else ():
            if (self.run / name).is_file():
                kept = [line for line in read(self.run, name) if line["position"] <= position]
                write_text(self.run / name, "".join(json.dumps(line) + "\n" for line in kept))

    def count(self, loss: torch.Tensor, bad: torch.Tensor, batch: Batch) -> None:
        """Take in one step of this rank. loss: scalar; bad: bool scalar, leaves it out of the mean."""
        self._loss += torch.where(bad, 0.0, loss.detach().double())
        self._skipped += bad
        self._steps += 1
        self._images += len(batch.ids)
        self._wait += batch.wait
        self._replaced += batch.replaced
        if batch.device_wait:
            self._device_waits.append(batch.device_wait)

    def state_dict(self) -> dict[str, float]:
        """The steps that no line covers yet."""
        loss, = self.world.sum(float(self._loss))
        return {"loss": loss / self.world.size, "steps": self._steps, "skipped": int(self._skipped)}

    def line(self, step: int, position: int, epoch: float, **values: Any) -> None:
        """Write the averages since the line before; without any good step the loss is null."""
        seconds, skipped = time.perf_counter() - self._began, int(self._skipped)
        loss = float(self._loss)  # waits for the device, so that its hand-overs are behind it
        device_wait = sum(wait.seconds() for wait in self._device_waits)
        loss, images, replaced, wait_shares, device_shares = self.world.sum(
            loss, self._images, self._replaced, self._wait / seconds, device_wait / seconds)
        good, device = self._steps - skipped, self.world.device
        peak = {"cuda_peak_mb": torch.cuda.max_memory_allocated(device) / 1e6} if device.type == "cuda" else {}
        self.loss = loss / self.world.size / good if good else math.nan
        self.wait_share, self.images_per_s = wait_shares / self.world.size, images / seconds
        self.lines += 1
        of_device = {}
        if self._device_waits:
            self.wait_share = of_device["device_wait_share"] = device_shares / self.world.size
        self.append(NAME, step=step, position=position, epoch=epoch, loss=self.loss if good else None, **values,
                    images_per_s=self.images_per_s, data_wait_share=wait_shares / self.world.size, **of_device,
                    replaced=int(replaced), skipped=skipped, memory_mb=memory_mb(), **peak)
        self._restart()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave what happens inside (validation, a checkpoint) out of the rates."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def append(self, name: str, **record: Any) -> None:
        """Write a line into one of the run's logs."""
        if self.world.is_main:
            with report_full_disk(self.run / name), open(self.run / name, "a") as f:
                f.write(json.dumps(record) + "\n")
            for sink in self.sinks:
                sink(name, record)

    def _restart(self) -> None:
        self._loss = torch.zeros((), dtype=torch.float64, device=self.world.device)
        self._skipped = torch.zeros((), dtype=torch.int64, device=self.world.device)
        self._steps, self._images, self._replaced = 0, 0, 0
        self._device_waits: list[DeviceWait] = []
        self._wait, self._began = 0.0, time.perf_counter()


def read(run: Path, name: str = NAME) -> list[dict[str, Any]]:
    """The lines of a run's log. A damaged line is named on stderr and left out: the log is not the run.

    So is, without a word, a last line that a kill cut short.
    """
    lines = (run / name).read_bytes().split(b"\n")[:-1] if (run / name).is_file() else []
    return [{RENAMED.get(key, key): value for key, value in line.items()} for number, text in enumerate(lines, 1)
            if (line := _parsed(text, f"{run / name} line {number}"))]


def _parsed(text: bytes, where: str) -> dict[str, Any] | None:
    line: Any = None
    with suppress(ValueError):
        line = parse_json(text)
    if isinstance(line, dict) and isinstance(line.get("position"), int):
        return line
    print(f"{where} is damaged and left out: {text[:60]!r}", file=sys.stderr)
    return None


# Updates whose loss or gradient is not finite: noticed on the device, named at the next line of the log.

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
                        keys=[key_text(key) for key in loader.dataset.index[ids]["key"]])
        said = (f"the loss or its gradient is not finite in step {step - ago}, whose photos are the last line of "
                f"{self.log.run / BAD}")
        if self.policy == "stop":
            raise UserError(f"{said}: lower train.lr or head.margin, or leave such updates out with train.on_bad_loss "
                            "skip")
        if self._in_a_row == PATIENCE:
            raise UserError(f"{said}, as in the {PATIENCE - 1} before, which were left out: lower train.lr or "
                            "head.margin")


# TensorBoard and Weights & Biases: the numbers of the run's logs as curves over images seen.

KINDS = {"none": (), "tensorboard": ("tensorboard",), "wandb": ("wandb",), "both": ("tensorboard", "wandb")}
PREFIX = {NAME: "train", VALIDATION: "val"}


@contextmanager
def watched(log: MetricsLog, kind: str) -> Iterator[None]:
    """Let the log's lines go where `train.watch` says as well; all is written when the block ends.

    Raises UserError, on all ranks, for a package that is missing, and where W&B does not start.
    """
    for package in KINDS[kind]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(f"train.watch {kind} needs the package {package}, which is missing: "
                            f"pip install 'arcshard[{'wandb' if package == 'wandb' else 'watch'}]', or set it to none"
                            ) from error
    with ExitStack() as stack:
        if log.world.is_main:
            log.sinks = [stack.enter_context(SINKS[package](log)) for package in KINDS[kind]]
        yield


def numbers(name: str, line: dict[str, Any]) -> dict[str, float]:
    """What of a log's line can be drawn, under the names of its curves; empty for a log that has none."""
    if name not in PREFIX:
        return {}
    return {f"{PREFIX[name]}/{key.removeprefix('val_')}": float(value) for key, value in line.items()
            if key not in ("step", "position") and isinstance(value, int | float)}


@contextmanager
def tensorboard(log: MetricsLog) -> Iterator[Sink]:
    """RUN/tensorboard, which begins with what the logs have.

    Readers forget what a killed run left beyond the position where this one goes on (purge_step), so that no point is
    there twice.
    """
    from torch.utils.tensorboard import SummaryWriter
    folder = log.run / "tensorboard"
    begun = any(folder.glob("events.*"))
    with SummaryWriter(folder, purge_step=log.position + 1) as writer:
        def sink(name: str, line: dict[str, Any]) -> None:
            for tag, value in numbers(name, line).items():
                writer.add_scalar(tag, value, line["position"])
            writer.flush()  # a kill costs no line that a checkpoint follows

        for name in () if begun else PREFIX:
            for line in read(log.run, name):
                sink(name, line)
        yield sink


@contextmanager
def wandb(log: MetricsLog) -> Iterator[Sink]:
    """A run of W&B's project arcshard, its id kept in RUN/wandb-id.

    W&B takes no step that is not later than its last: of what a killed run had sent, nothing is there twice.
    """
    import wandb as package
    run, kept = log.run, log.run / "wandb-id"
    if not kept.exists():
        write_text(kept, secrets.token_hex(4))
    if not re.fullmatch(rb"[\w-]{1,64}", id := kept.read_bytes()[:100].strip()):
        raise UserError(f"{kept} holds {id!r}, which is no id of a run of W&B: delete it, and a new one begins there")
    try:
        session = package.init(project="arcshard", name=run.resolve().name, id=id.decode(), resume="allow",
                               dir=run, settings=package.Settings(console="off"))
    except package.Error as error:
        raise UserError(f"W&B does not start ({error}): log in (wandb login), set WANDB_MODE=offline, "
                        "or take wandb out of train.watch") from error
    with session:
        yield lambda name, line: session.log(numbers(name, line), step=line["position"])


SINKS = {"tensorboard": tensorboard, "wandb": wandb}
