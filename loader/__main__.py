"""Look at what training will see.

    python -m loader preview DATASET [--config configs/demo.yaml] [--photos 6] [--views 8] [--out preview.png]

A row a photo: how evaluation frames it, then views as training draws them, colours included.
"""
import argparse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from arcshard.console import Parser, UserError, run
from arcshard.files import whole_file
from loader import View
from loader.order import sample_at
from loader.pipeline import decode
from loader.plan import Plan, evaluation_plan, training_plan
from loader.resources import Resources
from model.photometry import prepare  # the one place where this room shows what another does
from shards import Dataset

GAP = 4  # pixels between pictures


def main() -> None:
    args = parse_args()
    view, size = read_preset(args.config)
    dataset = Dataset(args.dataset, args.split)
    picture = sheet(dataset, view, size, args.photos, args.views, args.seed)
    with whole_file(args.out) as f:
        f.write(picture)
    print(f"{args.out}: {args.photos} photos at {size} pixels, each as evaluated and in {args.views} views")


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m loader", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser("preview", help="a sheet of views")
    command.add_argument("dataset", help="folder of the dataset, or s3://…")
    command.add_argument("--config", type=Path, help="YAML preset of train.py (default: train.py's defaults)")
    command.add_argument("--split", default="train", help="default: train")
    command.add_argument("--photos", type=int, default=6, help="rows (default: 6)")
    command.add_argument("--views", type=int, default=8, help="views a photo (default: 8)")
    command.add_argument("--seed", type=int, default=0, help="default: 0")
    command.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG (default: preview.png)")
    args = parser.parse_args()
    for name in ("photos", "views"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    return args


def read_preset(path: Path | None) -> tuple[View, int]:
    """View and side of a preset. Raises UserError if it is none."""
    try:
        preset = (yaml.safe_load(path.read_text()) or {}) if path else {}
        return View(**preset.get("view", {})), int(preset.get("train", {}).get("size", 224))
    except (OSError, yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--config must be a YAML preset of train.py, but {path} is not one "
                        f"({' '.join(str(error).split())})") from None


def sheet(dataset: Dataset, view: View, size: int, photos: int, views: int, seed: int) -> bytes:
    """The PNG: rows of the first photos of the stream, columns of their views."""
    photos = min(photos, len(dataset))
    rows = sample_at(np.arange(photos), len(dataset), seed)
    tiles = np.full((photos, 1 + views, size + GAP, size + GAP, 3), 255, np.uint8)
    for number, pictures in enumerate(pictures_of(dataset, view, size, rows, views, seed)):
        tiles[number, :, GAP:, GAP:] = pictures
    whole = tiles.transpose(0, 2, 1, 3, 4).reshape(photos * (size + GAP), -1, 3)
    return cv2.imencode(".png", cv2.cvtColor(whole, cv2.COLOR_RGB2BGR))[1].tobytes()


def pictures_of(dataset: Dataset, view: View, size: int, chosen: NDArray[np.int64], views: int, seed: int
                ) -> Iterator[NDArray[np.uint8]]:
    """For each photo uint8 (1 + views, size, size, 3): as evaluated, then as position after position would draw it."""
    def plans() -> Iterator[tuple[Plan, list[Any]]]:
        for number, row in enumerate(chosen.tolist()):
            ids, positions = np.full(views, row), number * views + np.arange(views)
            rows, photo = dataset.index[ids], dataset.checked_view(row)
            yield evaluation_plan(rows[:1], view.in_evaluation(), ids[:1], 0, size), [photo]
            yield training_plan(rows, view, seed, positions, ids, 0, size, 0), [photo] * views

    with ThreadPoolExecutor(1) as pool:
        pictures = (coloured(images, plan) for plan, images in decode(
            plans(), Resources("cpu", views, num_threads=1), pool, view))
        for evaluated in pictures:
            yield np.concatenate([evaluated, next(pictures)])


def coloured(images: torch.Tensor, plan: Plan) -> NDArray[np.uint8]:
    """The images (n, S, S, 3) as the network sees them, before it normalises."""
    x = prepare(images, torch.from_numpy(plan.jitter), torch.zeros(3), torch.ones(3))
    return (x.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


if __name__ == "__main__":
    run(main)
