"""Look at what training will see.

    python -m loader preview DATASET [--config configs/demo.yaml] [--photos 6] [--views 8] [--out preview.png]

Each row is a photo: as evaluation frames it, then views as training draws them, including colors. The stages of a
preset that differ in size or view follow each other from top to bottom.
"""
import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from arcshard.config import ConfigParser
from arcshard.console import Parser, UserError, check_least, run
from arcshard.files import whole_file
from arcshard.presets import read_preset, with_stage
from loader import View
from loader.order import sample_at
from loader.pipeline import Resources, decode
from loader.plan import Plan, evaluation_plan, training_plan
from model.augment import prepare  # what training does to colors; the only import of model in loader
from shards import Dataset

GAP = 4  # pixels between pictures
SIZE = 224  # pixels, if the preset has no train.size


def main() -> None:
    args = parse_args()
    stages = read_stages(args.config)
    dataset = Dataset(args.dataset, args.split)
    picture = stacked([sheet(dataset, view, size, args.photos, args.views, args.seed) for view, size in stages])
    with whole_file(args.out) as f:
        f.write(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
    print(f"{args.out}: {min(args.photos, len(dataset))} photos, each as evaluated and in {args.views} views")
    for (view, size), names in stages.items():
        print(f"{', '.join(names)}: {size} pixels, {differences(view)}")


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m loader", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser("preview", help="write a sheet of views")
    command.add_argument("dataset", help="folder of the dataset, or s3://…")
    command.add_argument("--config", type=Path, help="YAML preset of train.py (default: train.py's defaults)")
    command.add_argument("--split", default="train", help="default: train")
    command.add_argument("--photos", type=int, default=6, help="rows (default: 6)")
    command.add_argument("--views", type=int, default=8, help="views a photo (default: 8)")
    command.add_argument("--seed", type=int, default=0, help="default: 0")
    command.add_argument("--out", type=Path, default=Path("preview.png"), help="PNG (default: preview.png)")
    args = parser.parse_args()
    check_least(args, 1, "photos", "views")
    return args


def read_stages(path: Path | None) -> dict[tuple[View, int], list[str]]:
    """The (view, image size) of each of a preset's stages, mapped to the names of the stages that have it.

    Only these fields are read and checked. Raises UserError for what is not a preset.
    """
    parser = ConfigParser(prog="python -m loader preview")
    parser.add_class_arguments(View, "view")
    parser.add_argument("--train.size", type=int, default=SIZE)
    preset = read_preset(path, ("view", "train")) if path else {}
    sections = {name: preset.get(name, {}) for name in ("view", "train")}
    stages: dict[tuple[View, int], list[str]] = {}
    for name, diff in (preset.get("stages") or {"main": {}}).items():
        merged = with_stage(sections, name, diff)
        size = {key: value for key, value in merged["train"].items() if key == "size"}
        built = parser.build_object({"view": merged["view"], "train": size}, f"{path}: stages.{name}: ")
        if built.train.size < 1:
            raise UserError(f"{path}: stages.{name}: train.size is {built.train.size}: give a positive number")
        stages.setdefault((built.view, built.train.size), []).append(name)
    return stages


def differences(view: View) -> str:
    """The view's fields that are not the default, as text."""
    usual = asdict(View())
    changed = [f"{name} {value}" for name, value in asdict(view).items() if value != usual[name]]
    return ", ".join(changed) or "the default view"


def stacked(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures (h, w, 3) one below the other, padded with white to the widest."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
                           for picture in pictures])


def sheet(dataset: Dataset, view: View, size: int, photos: int, views: int, seed: int) -> NDArray[np.uint8]:
    """The first photos of the stream as rows, their views as columns: a picture (h, w, 3)."""
    photos = min(photos, len(dataset))
    rows = sample_at(np.arange(photos), len(dataset), seed)
    tiles = np.full((photos, 1 + views, size + GAP, size + GAP, 3), 255, np.uint8)
    for number, pictures in enumerate(pictures_of(dataset, view, size, rows, views, seed)):
        tiles[number, :, GAP:, GAP:] = pictures
    return tiles.transpose(0, 2, 1, 3, 4).reshape(photos * (size + GAP), -1, 3)


def pictures_of(dataset: Dataset, view: View, size: int, chosen: NDArray[np.int64], views: int, seed: int
                ) -> Iterator[NDArray[np.uint8]]:
    """For each photo uint8 (1 + views, size, size, 3): as evaluated, then as successive positions would draw it."""
    def plans() -> Iterator[tuple[Plan, list[Any]]]:
        for number, row in enumerate(chosen.tolist()):
            ids, positions = np.full(views, row), number * views + np.arange(views)
            rows, photo = dataset.index[ids], dataset.checked_view(row)
            yield evaluation_plan(rows[:1], view.in_evaluation(), ids[:1], 0, size), [photo]
            yield training_plan(rows, view, seed, positions, ids, 0, size, 0), [photo] * views

    with ThreadPoolExecutor(1) as pool:
        pictures = (colored(images, plan) for plan, images in decode(
            plans(), Resources("cpu", views, num_threads=1), pool, view, dataset))
        for evaluated in pictures:
            yield np.concatenate([evaluated, next(pictures)])


def colored(images: torch.Tensor, plan: Plan) -> NDArray[np.uint8]:
    """The images (n, S, S, 3) as the network sees them, before it normalizes."""
    x = prepare(images, torch.from_numpy(plan.jitter), torch.zeros(3), torch.ones(3))
    return (x.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


if __name__ == "__main__":
    sys.argv[0] = "loader"  # the name in front of error messages; python -m puts this file's path there
    run(main)
