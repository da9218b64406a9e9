"""What the parts of benchmarks/gpu.py share: how large they are, and how their findings are shown."""
import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine import listed

from arcshard.distributed import World
from loader import Loader, View
from shards import Dataset

VIEW = View(area=(0.3, 1.0), brightness=0.2)  # as configs/gldv2-r50.yaml, and a color for `jitter` to carry
TINY = "test_resnet"


class Row(NamedTuple):
    """One finding."""

    part: str
    what: str
    found: str
    expected: str
    """The mark, of one H100 at 224 px; empty where there is none."""
    met: bool | None
    """None: nothing to meet, or a dry run."""


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


# The findings as tables.


def mark(row: Row) -> str:
    if row.met is None:
        return "not judged" if row.expected else ""
    return "met" if row.met else "MISSED"


def table(rows: list[Row]) -> str:
    """Aligned columns."""
    cells = [("part", "what", "found", "expected", ""), *((*row[:4], mark(row)) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)


def markdown(about: dict[str, Any], rows: list[Row]) -> str:
    """The same for a page, under the machine and the sizes that it holds for."""
    lines = [f"{listed(about)}.", "", "| part | what | found | expected | |", "|---|---|---|---|---|"]
    lines += [f"| {' | '.join((*row[:4], mark(row)))} |" for row in rows]
    return "\n".join(lines) + "\n"
