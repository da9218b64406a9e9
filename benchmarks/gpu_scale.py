"""How large the parts of benchmarks/gpu.py are: as its marks want it, or tiny on a CPU."""
import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_report import Row

from arcshard.distributed import World
from loader import Loader, View
from shards import Dataset

VIEW = View(area=(0.3, 1.0), brightness=0.2)  # as configs/gldv2-r50.yaml, and a color for `jitter` to carry

TINY = "test_resnet"


@dataclass(frozen=True)
class Scale:
    """What all parts are given."""

    data: Path
    out: Path
    variants: tuple[str, ...]
    """Of the step."""
    on_gpu: bool
    backbone: str
    batch_size: int
    size: int
    """Of the images, pixels."""
    most_classes: int
    """No head has more."""
    steps: int
    """Of a measurement of the step alone."""
    steps_together: int
    """With the loader, after what was made before is used up."""
    trial_seconds: float
    """Of a setting of the loader."""
    parity_batches: int
    head_batches: tuple[int, ...]
    train_batch: int
    train_steps: int
    train_options: tuple[str, ...]
    """Of train.py beside configs/demo.yaml."""

    @classmethod
    def full(cls, args: argparse.Namespace) -> "Scale":
        return cls(args.data, args.out, tuple(args.variants), True, args.backbone, args.batch_size, args.size,
                   most_classes=203_094, steps=100, steps_together=300, trial_seconds=2.0, parity_batches=4,
                   head_batches=(256, 1024), train_batch=32, train_steps=3000, train_options=())

    @classmethod
    def tiny(cls, args: argparse.Namespace) -> "Scale":
        """For a CPU: what is walked is the same."""
        options = ("--train.size", "32", "--model.backbone", TINY)
        return cls(args.data, args.out, tuple(args.variants), False, TINY, 8, 48, most_classes=300, steps=3,
                   steps_together=4, trial_seconds=0.1, parity_batches=1, head_batches=(8,), train_batch=12,
                   train_steps=60, train_options=options)

    @property
    def world(self) -> World:
        return World(0, 1, torch.device("cuda" if self.on_gpu else "cpu"))

    @property
    def device(self) -> str:
        """Of a loader."""
        return "gpu" if self.on_gpu else "cpu"

    def loader(self, view: View = VIEW, device: str | None = None, batch_size: int | None = None) -> Loader:
        return Loader(Dataset(self.data), batch_size=batch_size or self.batch_size, size=self.size, view=view,
                      device=device or self.device)

    def row(self, part: str, what: str, found: str, expected: str = "", met: bool | None = None) -> Row:
        """A finding; only a GPU has marks to meet."""
        return Row(part, what, found, expected, met if self.on_gpu and expected else None)

    def facts(self) -> dict[str, Any]:
        """What the figures depend on."""
        names = ("backbone", "batch_size", "size", "steps", "steps_together")
        return {"photos": len(Dataset(self.data)), **{name: getattr(self, name) for name in names},
                "dry run": "yes" if not self.on_gpu else ""}


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
