"""The photos of the convergence study, decoded once for all runs of a task and a seed."""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from convergence_arms import Task, setting
from torch import Tensor

from loader import Batch, Loader
from shards import Dataset
from training.config import TrainConfig

OTHER_VIEWS = 1_000_000  # added to the seed of views that no run trains on


@dataclass(frozen=True)
class Photos:
    """What a task and a seed show to all their runs, as uint8 batches in memory."""

    train: Sequence[Batch]
    epoch: int
    """Photos of the train split."""
    gallery: Sequence[Batch]
    """Whole photos of the train split, each at most once."""
    val: Sequence[Batch]
    class_sizes: Tensor
    """Photos of each class (C,)."""


def load(dataset: Path, task: Task, seed: int) -> Photos:
    """Decode once what all runs of a seed share; an epoch has views of its own.

    Where the photos are the classes, val is their views of another seed; an incomplete batch is left out.
    """
    c, train = setting(task.baseline).train, Dataset(dataset, "train")
    read = partial(Loader, batch_size=c.global_batch, size=c.size, view=task.view, num_threads=1)
    longest = max(updates(setting(task.baseline, arm.changes).train, len(train)) for arm in task.arms.values())
    shown, gallery = list(islice(read(train, seed=seed), longest)), list(read(train, train=False))[::task.gallery_every]
    if task.classes_are_photos:
        val = list(islice(read(train, seed=seed + OTHER_VIEWS), len(train) // c.global_batch))
        return Photos(by_photo(shown), len(train), by_photo(gallery), by_photo(val), torch.ones(len(train)))
    val = list(read(Dataset(dataset, "val"), train=False))
    return Photos(shown, len(train), gallery, val, torch.from_numpy(np.bincount(train.labels)))


def by_photo(batches: Iterable[Batch]) -> list[Batch]:
    """Every photo a class of its own."""
    return [replace(batch, labels=batch.ids) for batch in batches]


def updates(c: TrainConfig, epoch: int) -> int:
    """Of a run over `epoch` photos an epoch."""
    return math.ceil(c.epochs * epoch / c.global_batch)
