"""What keeps an embedding good for landmarks that training has not seen: recipes, and what is done after training.

    python docs/studies/unseen.py --data data/demo/dataset --unseen data/demo/unseen --out runs/unseen [--photos DIR]

Each arm is configs/demo.yaml with other options, each seed a run of its own; finished runs are not repeated. What
comes after training is tried on all runs of the recipe itself. --photos: a further dataset whose photos, all in its
train split, are queries for each other among 300 of the demo's. Prints the tables of docs/unseen-landmarks.md.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from study import ROOT, command, median_range

from arcshard.console import Parser, run
from loader import Loader
from model.augment import prepare
from retrieval.metrics import count_relevant, gap, map_at_k, recall_at_k
from retrieval.run.model import RunModel, load_model, load_untrained
from retrieval.state import unit
from retrieval.whitening import fit_whitening
from shards import Dataset

RECIPE = "configs/demo.yaml"
FLAT = ("--train.layer_decay", 1)  # without layer decay
ARMS: dict[str, Sequence[object]] = {
    RECIPE: (),
    "no layer decay": FLAT,
    "no layer decay, backbone at a third of the rate": (*FLAT, "--train.backbone_lr", 0.033),
    "no layer decay, half the epochs": (*FLAT, "--train.epochs", 4),
    "no layer decay, no neck": (*FLAT, "--model.neck", "none"),
}
DISTRACTORS = 300  # photos of the demo
DIM = 512  # of PCA

Sets = dict[str, Dataset]
Matrix = NDArray[np.float32]
Vectors = dict[str, Matrix]
"""Of each set of photos, its name first: (N, D)."""


@dataclass(frozen=True)
class Features:
    """What a network makes of all sets: the features pooled in two ways, and the embeddings."""
    average: Vectors
    gem: Vectors
    neck: Vectors


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of the demo")
    parser.add_argument("--unseen", type=Path, required=True, help="dataset folder of its unseen landmarks")
    parser.add_argument("--photos", type=Path, help="dataset folder of further unseen landmarks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    args = parser.parse_args()
    data, unseen = ({split: Dataset(path, split) for split in ("train", "test")} for path in (args.data, args.unseen))
    photos = {"train": data["train"], "val": Dataset(args.data, "val"), "test": data["test"],
              "unseen gallery": unseen["train"], "unseen": unseen["test"],
              **({"further": Dataset(args.photos, "train")} if args.photos else {})}
    found: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        for number, (arm, options) in enumerate(ARMS.items()):
            folder = args.out / f"{number}-seed-{seed}"
            command("train.py", "--config", ROOT / RECIPE, "--data", args.data, "--out", folder, "--train.seed", seed,
                    *options)
            for name, vectors in variants(arm, folder, photos).items():
                found.setdefault(name, []).append(figures(vectors, photos))
    print(table(found))


def variants(arm: str, folder: Path, photos: Sets) -> dict[str, Vectors]:
    """Embeddings of all sets, for each line of the table that this run belongs to."""
    trained = load_model(folder)
    after = features(trained, photos)
    found = {arm: after.neck, f"{arm}, PCA joined at 0.75": joined(after.neck, pca(after.gem), 0.75)}
    if arm != RECIPE:
        return found
    before = features(load_untrained(folder), photos)
    mean = features(averaged(trained, load_untrained(folder)), photos)
    return {
        "pretrained": before.average, "pretrained, PCA": pca(before.average), **found,
        **{f"{arm}, PCA joined at {share:g}": joined(after.neck, pca(after.gem), share) for share in (0.25, 0.5)},
        f"{arm}, pooled features": after.gem,
        f"{arm}, PCA rotated alone": pca(after.gem, 0), f"{arm}, PCA": pca(after.gem),
        f"{arm}, PCA whitened": pca(after.gem, 1), f"{arm}, embeddings whitened": pca(after.neck, 1, 256),
        "mean with the pretrained weights, averaged": mean.average,
        "mean with the pretrained weights, PCA": pca(mean.gem),
        "mean with the pretrained weights, PCA joined at 0.75": joined(after.neck, pca(mean.gem), 0.75)}


@torch.inference_mode()
def features(model: RunModel, photos: Sets) -> Features:
    """Of all sets. In order, at the run's size."""
    embedder = model.embedder
    found = Features({}, {}, {})
    for name, dataset in photos.items():
        parts: list[list[torch.Tensor]] = [[], [], []]
        for batch in Loader(dataset, batch_size=64, size=model.size, train=False, view=model.view):
            maps = embedder.backbone(prepare(batch.images, batch.jitter, embedder.mean, embedder.std))
            pooled = embedder.pooling(maps)
            for part, value in zip(parts, (maps.mean((2, 3)), pooled, embedder.neck(pooled))):
                part.append(value)
        found.average[name], found.gem[name], found.neck[name] = (torch.cat(part).numpy() for part in parts)
    return found


def averaged(model: RunModel, untrained: RunModel) -> RunModel:
    """Its backbone the mean of trained and pretrained weights: WiSE-FT at ½, Wortsman et al. 2022, arXiv 2109.01903."""
    one, other = (part.embedder.backbone.state_dict() for part in (model, untrained))
    model.embedder.backbone.load_state_dict({name: (value + other[name]) / 2 if value.is_floating_point() else value
                                             for name, value in one.items()})
    return model


def pca(vectors: Vectors, power: float = 0.5, dim: int = DIM) -> Vectors:
    """PCA learned from the train split, see `fit_whitening`."""
    found = fit_whitening(vectors["train"], dim, power)
    return {name: found.apply(rows) for name, rows in vectors.items()}


def joined(one: Vectors, other: Vectors, share: float) -> Vectors:
    """Cosines are the means of both, `share` of the other's."""
    return {name: np.hstack([unit(one[name]) * (1 - share) ** 0.5, unit(other[name]) * share ** 0.5]) for name in one}


def figures(vectors: Vectors, photos: Sets) -> dict[str, float]:
    """Of the nearest photos by cosine: those that the table has as columns."""
    seen, unseen, every = ("train",), ("unseen gallery",), ("unseen gallery", "train")
    found = {
        "val, recall@1": measure(vectors, photos, "val", seen)["recall@1"],
        "val, mAP@100": measure(vectors, photos, "val", seen)["map@100"],
        "test, GAP": measure(vectors, photos, "test", seen)["gap"],
        "unseen, recall@1": measure(vectors, photos, "unseen", unseen)["recall@1"],
        "unseen, mAP@100": measure(vectors, photos, "unseen", unseen)["map@100"],
        "unseen among all, recall@1": measure(vectors, photos, "unseen", every)["recall@1"]}
    return found | ({"further, mAP": further(vectors, photos)} if "further" in photos else {})


def measure(vectors: Vectors, photos: Sets, queries: str, galleries: Sequence[str]) -> dict[str, float]:
    """Each query answered by its nearest photo, whose cosine is the score."""
    rows = np.concatenate([unit(vectors[name]) for name in galleries])
    names = np.concatenate([landmarks(photos[name]) for name in galleries])
    known, labels = np.unique(names, return_inverse=True)
    truths = [set(np.flatnonzero(known == name).tolist()) for name in landmarks(photos[queries])]
    cosines = unit(vectors[queries]) @ rows.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :100]
    neighbors = labels[order]
    return {"recall@1": recall_at_k(neighbors, truths, 1), "gap": gap(neighbors[:, 0], cosines.max(axis=1), truths),
            "map@100": map_at_k(neighbors, truths, count_relevant(labels, truths))}


def landmarks(dataset: Dataset) -> NDArray[np.str_]:
    """What each photo shows, (N,); "" for no landmark."""
    return np.array([dataset.landmark_ids[label] if label >= 0 else "" for label in dataset.labels.tolist()])


def further(vectors: Vectors, photos: Sets) -> float:
    """mAP of the further photos: each is a query, the others and some of the train split are the gallery."""
    rows = unit(np.concatenate([vectors["further"], vectors["train"][:DISTRACTORS]]))
    labels = np.concatenate([photos["further"].labels, np.full(DISTRACTORS, -1)])
    count = len(vectors["further"])
    cosines = rows[:count] @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :-1]
    truths = [{label} for label in photos["further"].labels.tolist()]
    return map_at_k(labels[order], truths, count_relevant(labels, truths) - 1, k=len(rows))


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Medians over the seeds."""
    columns = [*next(iter(found.values()))[0]]
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, seeds in found.items():
        cells = [median_range([each[column] for each in seeds], ".3f") for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
