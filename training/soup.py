"""A uniform soup: one network whose weights are the mean of several runs' weights."""
import argparse
import itertools
import math
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.config import differences
from arcshard.console import UserError, check_least, progress
from loader import Loader, View
from model import Embedder, ModelConfig, build_embedder
from model.batchnorm import batchnorms, estimate_statistics
from shards import CacheConfig, Dataset
from training.config import with_new_options

BATCH = 64
APART = 0.5  # mean cosine of two runs' centers; runs that went on from one checkpoint have about 0.9, others about 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN",
                        help="folders that train.py wrote, of one recipe, that went on from the same checkpoint")
    parser.add_argument("--data", required=True, help="dataset that they were trained on: folder or s3://…")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder to write")
    parser.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE",
                        help=f"of each run (default: {checkpoint.NAME})")
    parser.add_argument("--images", type=int, default=8192,
                        help="training images over which BatchNorm's statistics are computed anew (default: 8192)")


def average(args: argparse.Namespace) -> None:
    """Write the run. Raises UserError for runs that do not fit together, and for an --out that has a checkpoint."""
    check_least(args, 2, "images")
    if len(args.runs) < 2:
        raise UserError("an average of weights takes at least two runs: give more")
    if (args.out / checkpoint.NAME).exists():
        raise UserError(f"{args.out} has a {checkpoint.NAME}: give another --out")
    saved = {run: checkpoint.load(run, args.checkpoint) for run in args.runs}
    first = saved[args.runs[0]]
    dataset = Dataset(args.data, "train", CacheConfig(**first.config.get("cache", {})))
    if first.trained_on not in (None, dataset.fingerprint):
        raise UserError(f"{args.data} is not the dataset that {args.runs[0]} was trained on: give that")
    with checkpoint.fitting(args.runs[0], args.checkpoint):
        check_alike(saved)
        apart = least_cosine(saved)
        weights = soup([one.best_weights for one in saved.values()])
        embedder = build_embedder(replace(ModelConfig(**first.config["model"]), weights="none"))
        embedder.load_state_dict(weights.embedder)
    print(f"class centers of two runs agree by a cosine of {apart:.2f}, the least of all pairs")
    if apart < APART:
        print("warning: these runs did not go on from one checkpoint, or went far from it; a mean of weights that have "
              "little to do with each other answers worse than each alone: compare by evaluate.py, and see --ensemble",
              flush=True)
    estimate(embedder.to("cuda" if torch.cuda.is_available() else "cpu"), first, dataset, args.images)
    weights = Weights(embedder.cpu().state_dict(), weights.head)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint.save(args.out, replace(first, weights=weights, average=weights if first.average else None))
    print(f"{args.out / checkpoint.NAME}: the mean of {len(saved)} runs' weights")


def check_alike(saved: dict[Path, Checkpoint]) -> None:
    """Raise UserError unless the runs have the same network, classes and views; how they learned may differ."""
    (name, first), *others = saved.items()

    def recipe(one: Checkpoint) -> dict[str, dict[str, object]]:
        config = with_new_options(one.config)
        return {**{section: config[section] for section in ("model", "head", "view")},
                "train": {"size": config["train"]["size"]}}

    for other, one in others:
        if changed := differences(recipe(first), recipe(one), {"model.weights"}):
            raise UserError(f"{name} and {other} are of different recipes: {'; '.join(changed)}; only what decides how "
                            "they learn may differ")
        if one.landmark_ids != first.landmark_ids:
            raise UserError(f"{name} and {other} have different classes: give runs of the same dataset")


def soup(parts: list[Weights]) -> Weights:
    """The mean of each tensor, in float64; of counts and the like those of the first.

    Uniform soup: Wortsman et al. 2022, arXiv 2203.05482.
    """
    def mean(tensors: list[Tensor]) -> Tensor:
        if not tensors[0].is_floating_point():
            return tensors[0]
        return torch.stack([tensor.double() for tensor in tensors]).mean(0).to(tensors[0].dtype)

    return Weights(*({name: mean([getattr(part, side)[name] for part in parts]) for name in getattr(parts[0], side)}
                     for side in ("embedder", "head")))


def least_cosine(saved: dict[Path, Checkpoint]) -> float:
    """Of two runs, how far their heads agree: the mean cosine of a center in one and the same in the other."""
    heads = [F.normalize(one.best_weights.head["weight"].float()) for one in saved.values()]
    return min(float((one * other).sum(1).mean()) for one, other in itertools.combinations(heads, 2))


def estimate(embedder: Embedder, saved: Checkpoint, dataset: Dataset, images: int) -> None:
    """Compute the running statistics anew that training moved: the mean of statistics is not those of the mean.

    They are those of at least so many training images, as training would draw them.
    """
    layers = batchnorms(embedder)
    if saved.config["train"]["batchnorm"] == "frozen":
        backbone = {*batchnorms(embedder.backbone)}
        layers = [layer for layer in layers if layer not in backbone]
    embedder.eval()
    for layer in layers:
        layer.train()
    loader = Loader(dataset, batch_size=BATCH, size=saved.config["train"]["size"], view=View(**saved.config["view"]),
                    device=embedder.mean.device)
    count = math.ceil(images / BATCH)
    if layers:
        batches = progress(itertools.islice(loader, count), total=count, unit="batches", what="statistics")
        estimate_statistics(layers, (embedder(batch.images, batch.jitter) for batch in batches))
    embedder.eval()
