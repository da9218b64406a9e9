"""Fit a trained run to landmarks that it has not seen: PCA of the pooled features joins its embedding.

Training teaches the neck to tell its own classes apart, and what tells others apart is lost there, but not in the
features before it (docs/unseen-landmarks.md).
"""
import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.console import UserError, check_least, progress
from arcshard.distributed import World
from loader import Batch, Loader, View
from model import Embedder, ModelConfig, build_embedder
from model.augment import prepare
from model.necks import WithPca
from model.stats import class_means
from retrieval.whitening import fit_whitening
from shards import CacheConfig, Dataset
from training.soup import BATCH

POWER = 0.5  # of the standard deviations that PCA's dimensions are divided by: 0 rotates, 1 whitens; see the study

Rows = NDArray[np.int64] | range


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset that it was trained on: folder or s3://…")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder to write")
    parser.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE",
                        help=f"of the run (default: {checkpoint.NAME})")
    parser.add_argument("--dim", type=int, default=512, help="numbers that PCA adds to the embedding (default: 512)")
    parser.add_argument("--share", type=float, default=ModelConfig.pca_share,
                        help="of PCA in a cosine, above 0 and below 1; more helps unseen landmarks and costs seen ones "
                             f"(default: {ModelConfig.pca_share})")
    parser.add_argument("--images", type=int, default=50_000,
                        help="training photos that PCA learns from (default: 50,000)")


def generalize(args: argparse.Namespace) -> None:
    """Write the run. Raises UserError for options that do not fit it, and for an --out that has a checkpoint."""
    check_least(args, 2, "images")
    check_least(args, 1, "dim")
    if not 0 < args.share < 1:
        raise UserError(f"--share is {args.share}: give more than 0 and less than 1")
    if (args.out / checkpoint.NAME).exists():
        raise UserError(f"{args.out} has a {checkpoint.NAME}: give another --out")
    saved = checkpoint.load(args.run, args.checkpoint)
    dataset = Dataset(args.data, "train", CacheConfig(**saved.config.get("cache", {})))
    if saved.trained_on not in (None, dataset.fingerprint):
        raise UserError(f"{args.data} is not the dataset that {args.run} was trained on: give that")
    if saved.config["model"].get("pca_dim"):
        raise UserError(f"{args.run} has a PCA already: give the run that train.py wrote")
    with checkpoint.fitting(args.run, args.checkpoint):
        config = replace(ModelConfig(**saved.config["model"]), weights="none")
        embedder = build_embedder(config, size=saved.config["train"]["size"])
        embedder.load_state_dict(saved.best_weights.embedder)
    embedder = embedder.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    add_pca(embedder, pooled_features(embedder, saved, dataset, args.images), args.dim, args.share)
    head = {**saved.best_weights.head, "weight": class_centers(embedder, saved, dataset)}
    weights = Weights({name: value.cpu() for name, value in embedder.state_dict().items()}, head)
    options = {**saved.config, "head": {**saved.config["head"], "centers": 1},
               "model": {**saved.config["model"], "pca_dim": args.dim, "pca_share": args.share}}
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint.save(args.out, replace(saved, config=options, weights=weights, average=None, optimizer={}))
    print(f"{args.out / checkpoint.NAME}: embeddings of {embedder.dim} numbers, the last {args.dim} from PCA")


@torch.inference_mode()
def pooled_features(embedder: Embedder, saved: Checkpoint, dataset: Dataset, images: int) -> NDArray[np.float32]:
    """Of at most so many photos of the dataset, the neck's input: float32 (n, W)."""
    rows = np.sort(np.random.default_rng(0).permutation(len(dataset))[:images])
    return np.concatenate([embedder.pooled(prepare(batch.images, batch.jitter, embedder.mean, embedder.std)).cpu()
                           for batch in batches(embedder, saved, dataset, rows, "pooled features")])


def add_pca(embedder: Embedder, features: NDArray[np.float32], dim: int, share: float) -> None:
    """Let PCA of these (n, W) to `dim` numbers join the embedding. Raises UserError if they vary in fewer."""
    try:
        found = fit_whitening(features, dim, POWER)
    except ValueError as error:
        raise UserError(f"the pooled features of {len(features):,} photos: {error}") from error
    neck = WithPca(embedder.neck, features.shape[1], dim, share)
    neck.pca.weight.data.copy_(torch.from_numpy(found.projection))
    neck.pca.bias.data.copy_(torch.from_numpy(found.bias))
    embedder.neck, embedder.dim = neck.to(embedder.mean.device).eval(), embedder.dim + dim


@torch.inference_mode()
def class_centers(embedder: Embedder, saved: Checkpoint, dataset: Dataset) -> Tensor:
    """float32 (C, D) of length 1: the classes' mean directions; a class without photos has a random one."""
    means = class_means(lambda batch: embedder(batch.images, batch.jitter),
                        batches(embedder, saved, dataset, range(len(dataset)), "class centers"),
                        len(dataset.landmark_ids), World(0, 1, embedder.mean.device)).cpu()
    random = F.normalize(torch.randn(means.shape, generator=torch.Generator().manual_seed(0)))
    return torch.where(means.any(1, keepdim=True), means, random)


def batches(embedder: Embedder, saved: Checkpoint, dataset: Dataset, rows: Rows, what: str) -> Iterator[Batch]:
    """These rows, as evaluation shows them to the network, with a progress bar."""
    loader = Loader(dataset, batch_size=BATCH, size=saved.config["train"]["size"], view=View(**saved.config["view"]),
                    train=False, rows=rows, device=embedder.mean.device)
    with progress(total=len(rows), unit="photos", what=what) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch.labels))
