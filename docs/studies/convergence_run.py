"""One run of the convergence study: a flat loop of the product's parts, with the study's faults around them.

Shape suffixes: B batch.
"""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from convergence_arms import Faults, Setting, Task, setting
from torch import Tensor, nn

from arcshard.distributed import World
from loader import Batch, Loader
from model import build_embedder, build_head
from model.batchnorm import freeze_statistics
from model.embedder import Embedder
from model.heads import MarginHead
from model.stats import EmbeddingStats, class_means, init_centers
from shards import Dataset
from training import monitor
from training.config import TrainConfig
from training.optim import build_optimizer, clip, set_lr, step_unless
from training.schedules import lr_factor, margin_at
from training.step import Step, train_mode

# The photos, decoded once for all runs of a task and a seed.

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


# D2-MetricLearning's faults of the input and of what learns, put around the product's network.

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # detectron2's, for pixels in 0..255


def apply_faults(faults: Faults, embedder: Embedder) -> None:
    """Change what the network is given, and freeze the layers that must not learn."""
    if faults.double_normalization:
        embedder.mean, embedder.std = normalized_twice(embedder.mean, embedder.std)
    if faults.bgr:
        embedder.register_forward_pre_hook(_reversed_channels)
    frozen_part(faults, embedder).requires_grad_(False)


def normalized_twice(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """What ((x − mean) / std − PIXEL_MEAN) / PIXEL_STD takes from pixel values x in 0..1, and divides by; (3,) each."""
    return mean + std * torch.tensor(PIXEL_MEAN), std * torch.tensor(PIXEL_STD)


def frozen_part(faults: Faults, embedder: Embedder) -> nn.Module:
    """Of an EfficientNet, stem and stages down to a quarter of the side; nothing without the fault."""
    backbone: Any = embedder.backbone
    if not faults.frozen_stem:
        return nn.ModuleList()
    return nn.ModuleList([backbone.conv_stem, backbone.bn1, backbone.blocks[0], backbone.blocks[1]])


def _reversed_channels(embedder: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    images, jitter = inputs
    return images.flip(-1), jitter


# The run.

WORLD = World(0, 1, torch.device("cpu"))
Line = dict[str, float]
LOG_EVERY = 10  # updates
LEARNING_SHARE = 0.1  # a run is off the plateau once this share of the training photos is nearest to its own center


def train(setting: Setting, photos: Photos, seed: int) -> dict[str, Any]:
    """Train; returns the results, see `outcome`, and `lines` with means over each LOG_EVERY updates."""
    torch.manual_seed(seed)
    c, fault, (embedder, head) = setting.train, setting.fault, build(setting, photos)
    step = Step(embedder, head)
    optimizer = build_optimizer(step, embedder.backbone, c)
    total, seen, lines = updates(c, photos.epoch), RunningMeans(), []
    for number, batch in enumerate(photos.train[:total]):
        progress, epochs = number / total, number * c.global_batch / photos.epoch
        set_lr(optimizer, c.lr * lr_factor(progress, epochs, c))
        margin = margin_of(setting, progress, epochs)
        head.set_margin(margin)
        train_mode(step, c, 0)
        freeze_statistics(frozen_part(fault, embedder))
        embeddings = embedder(batch.images, batch.jitter)
        loss = head(embeddings, batch.labels)
        seen.add(loss, head.cosines(embeddings.detach()), batch.labels)
        loss.backward()
        step_unless(clip(step, c), optimizer)
        if (number + 1) % LOG_EVERY == 0 or number + 1 == total:
            level = monitor.collapsed_loss(head.num_centers, float(head.scale), head.cost_of_one(photos.class_sizes))
            lines.append({"epoch": (number + 1) * c.global_batch / photos.epoch, "margin": margin, "collapsed": level,
                          **seen.means()})
    return {"lines": lines, **outcome(embedder, head, photos, lines)}


def build(setting: Setting, photos: Photos) -> tuple[Embedder, MarginHead]:
    """The network with its faults, and the head."""
    embedder, num_classes = build_embedder(setting.model), len(photos.class_sizes)
    head = build_head(setting.head, embedder.dim, num_classes, photos.class_sizes.numpy())
    apply_faults(setting.fault, embedder)
    if setting.fault.class_means:
        embedder.eval()
        init_centers(head, class_means(lambda batch: embedder(batch.images, batch.jitter), photos.gallery, num_classes,
                                     WORLD))
    return embedder, head


@dataclass
class RunningMeans:
    """Sums since the last line of the log."""

    updates: int = 0
    loss: float = 0.0
    right: float = 0.0

    def add(self, loss: Tensor, cos_BC: Tensor, labels_B: Tensor) -> None:
        """Add a batch, before its update: afterwards its own centers would lie nearer."""
        self.updates += 1
        self.loss += loss.item()
        self.right += share(cos_BC.argmax(1) == labels_B)

    def means(self) -> Line:
        """Means of loss and of the share of photos nearest to their own center since the last call."""
        found = {"loss": self.loss / self.updates, "right": self.right / self.updates}
        self.updates, self.loss, self.right = 0, 0.0, 0.0
        return found


def margin_of(setting: Setting, progress: float, epochs: float) -> float:
    """The margin of the head's schedule, or 0 for the first half of the run with softmax_first."""
    if setting.fault.softmax_first:
        return setting.head.margin if progress >= 0.5 else 0.0
    return margin_at(progress, epochs, setting.head)


def outcome(embedder: Embedder, head: MarginHead, photos: Photos, lines: Sequence[Line]) -> dict[str, Any]:
    """The results of a run.

    nearest_photo, nearest_center: recall@1 of val, by the nearest photo of the gallery and by the head's centers.
    target_cosine … dead_centers: of val, see EmbeddingStats. uniform, untrained, collapsed: reference losses
    at the end of the run. off_plateau: epoch at which LEARNING_SHARE was reached, None if never.
    """
    stats = EmbeddingStats(head.num_centers, WORLD)
    gallery, gallery_labels = embedded(embedder, photos.gallery)
    val, val_labels = embedded(embedder, photos.val)
    cosines = head.cosines(val)
    stats.update(cosines, val, val_labels)
    nearest = gallery_labels[(F.normalize(val) @ F.normalize(gallery).T).argmax(1)]
    scale, margin = float(head.scale), float(head.margin)
    return {
        "nearest_photo": share(nearest == val_labels), "nearest_center": share(cosines.argmax(1) == val_labels),
        **stats.compute(),
        "uniform": monitor.uniform_loss(head.num_centers),
        "untrained": monitor.untrained_loss(head.num_centers, embedder.dim, scale, margin),
        "collapsed": lines[-1]["collapsed"],
        "off_plateau": next((line["epoch"] for line in lines if line["right"] >= LEARNING_SHARE), None)}


@torch.inference_mode()
def embedded(embedder: Embedder, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Embeddings (n, D) and labels (n,) of all batches, in evaluation."""
    embedder.eval()
    parts = [(embedder(batch.images, batch.jitter), batch.labels) for batch in batches]
    return torch.cat([x for x, _ in parts]), torch.cat([labels for _, labels in parts])


def share(right: Tensor) -> float:
    return right.float().mean().item()
