"""Which landmark does a val photo's nearest train photo show? On a sample that stays the same, to choose a checkpoint.

Unlike the nearest class center, which val_recall@1 asks for, this is how evaluate.py and answers compare photos. A
sample of the gallery is an easier one: the figures compare the checkpoints of a run, and no run with another dataset.
"""
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from shards import Dataset
from training.stage import StageRun, make_loader
from training.step import Step, autocast

FIGURES = ("val_photo_recall@1", "val_photo_gap")
QUERIES, GALLERY = 1000, 4000  # photos at most

Rows = NDArray[np.int64]


def figures(stage: StageRun, step: Step) -> dict[str, float]:
    """recall@1 and GAP of the sample, whose score is the cosine to the nearest photo; `step` in eval mode.

    All ranks must call.
    """
    from retrieval.metrics import gap, recall_at_k  # lazy: loads FAISS, which other runs have no use for
    val, train = (Dataset(stage.config.data, split, stage.config.cache) for split in ("val", "train"))
    queries = spread(len(val), QUERIES)
    gallery = first_of_classes(train.labels, np.unique(val.labels[queries]), GALLERY)
    truths = [{label} if label >= 0 else set[int]() for label in val.labels[queries].tolist()]
    if not len(gallery):
        return dict.fromkeys(FIGURES, 0.0)
    cosines = embedded(stage, step, val, queries) @ embedded(stage, step, train, gallery).T
    best, place = (found.cpu().numpy() for found in cosines.max(dim=1))
    labels = train.labels[gallery[place]]
    return dict(zip(FIGURES, (recall_at_k(labels[:, None], truths, 1), gap(labels, best, truths))))


def spread(count: int, most: int) -> Rows:
    """At most so many of the numbers below `count`, evenly spaced, rising."""
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


def first_of_classes(labels: NDArray[np.integer], classes: NDArray[np.integer], most: int) -> Rows:
    """At most so many rows of these classes, rising: the first of each class, then the second of each, ….

    labels: (N,); class -1 is none.
    """
    rows = np.flatnonzero(np.isin(labels, classes[classes >= 0]))
    by_class = rows[np.argsort(labels[rows], kind="stable")]
    _, begins, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.arange(len(by_class)) - np.repeat(begins, sizes)
    return np.sort(by_class[np.argsort(place, kind="stable")[:most]])


def embedded(stage: StageRun, step: Step, dataset: Dataset, rows: Rows) -> torch.Tensor:
    """float32 (n, D) of length 1 of those rows, on all ranks; each embeds its part."""
    world = stage.world
    found: torch.Tensor | None = None
    for batch in make_loader(dataset, stage.config, stage.seed, world, train=False, rows=rows):
        with autocast(stage.c, world), torch.inference_mode():
            vectors = F.normalize(step.embedder(batch.images, batch.jitter).float())
        if found is None:
            found = vectors.new_zeros(len(rows), vectors.shape[1])
        found[np.searchsorted(rows, batch.ids.numpy())] = vectors
    if found is None:  # more ranks than photos
        found = torch.zeros(len(rows), step.embedder.dim, device=world.device)
    return world.total(found)
