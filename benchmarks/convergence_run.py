"""One run of the convergence study: a flat loop of the product's parts, with the study's faults around them.

Shape suffixes: B batch.
"""
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from convergence_arms import Setting
from convergence_faults import frozen_part, put_in
from convergence_photos import Photos, updates
from torch import Tensor, nn

from arcshard.distributed import World
from loader import Batch
from model import build_embedder, build_head
from model.batchnorm import freeze_statistics
from model.embedder import Embedder
from model.heads import MarginHead
from model.stats import EmbeddingStats, class_means, start_from
from training import monitor
from training.optim import build_optimizer, clip, set_lr, step_unless
from training.schedules import lr_factor, margin_at
from training.step import Step, train_mode

WORLD = World(0, 1, torch.device("cpu"))
CLIP_VALUE = 0.01
Line = dict[str, float]
LOG_EVERY = 10  # updates
TOLD = 0.1  # share of training photos nearest to their own center from which a run counts as off the plateau


def train(setting: Setting, photos: Photos, seed: int) -> dict[str, Any]:
    """Train, and say how it went: see `outcome`; `lines` has means of each LOG_EVERY updates."""
    torch.manual_seed(seed)
    c, fault, (embedder, head) = setting.train, setting.fault, build(setting, photos)
    step = Step(embedder, head)
    optimizer = build_optimizer(step, embedder.backbone, c)
    total, seen, lines = updates(c, photos.epoch), Seen(), []
    for number, batch in enumerate(photos.train[:total]):
        progress = number / total
        set_lr(optimizer, c.lr * lr_factor(progress, c.warmup, c.schedule))
        margin = margin_of(setting, progress)
        head.set_margin(margin)
        train_mode(step, c, 0)
        freeze_statistics(frozen_part(fault, embedder))
        embeddings = embedder(batch.images, batch.jitter)
        loss = head(embeddings, batch.labels)
        seen.add(loss, head.cosines(embeddings.detach()), batch.labels)
        loss.backward()
        if fault.clip_value:
            nn.utils.clip_grad_value_(step.parameters(), CLIP_VALUE)
        step_unless(clip(step.parameters(), [], math.inf if fault.clip_value else c.clip), optimizer)
        if (number + 1) % LOG_EVERY == 0 or number + 1 == total:
            level = monitor.collapsed_loss(head.num_centers, float(head.scale), head.cost_of_one(photos.class_sizes))
            lines.append({"epoch": (number + 1) * c.global_batch / photos.epoch, "margin": margin, "collapsed": level,
                          **seen.means()})
    return {"lines": lines, **outcome(embedder, head, photos, lines)}


def build(setting: Setting, photos: Photos) -> tuple[Embedder, MarginHead]:
    """The network with its faults, and the head."""
    embedder, num_classes = build_embedder(setting.model), len(photos.class_sizes)
    head = build_head(setting.head, embedder.dim, num_classes, photos.class_sizes)
    put_in(setting.fault, embedder)
    if setting.fault.class_means:
        embedder.eval()
        start_from(head, class_means(lambda batch: embedder(batch.images, batch.jitter), photos.gallery, num_classes,
                                     WORLD))
    return embedder, head


@dataclass
class Seen:
    """Sums since the last line."""

    updates: int = 0
    loss: float = 0.0
    right: float = 0.0

    def add(self, loss: Tensor, cos_BC: Tensor, labels_B: Tensor) -> None:
        """A batch, before its update: afterwards its own centers would lie nearer."""
        self.updates += 1
        self.loss += loss.item()
        self.right += share(cos_BC.argmax(1) == labels_B)

    def means(self) -> Line:
        """Of loss and share of photos nearest to their own center; then it begins anew."""
        found = {"loss": self.loss / self.updates, "right": self.right / self.updates}
        self.updates, self.loss, self.right = 0, 0.0, 0.0
        return found


def margin_of(setting: Setting, progress: float) -> float:
    """Of the head's schedule, or none until half of the run is over."""
    if setting.fault.softmax_first:
        return setting.head.margin if progress >= 0.5 else 0.0
    return margin_at(progress, setting.head.margin, setting.head.margin_warmup)


def outcome(embedder: Embedder, head: MarginHead, photos: Photos, lines: Sequence[Line]) -> dict[str, Any]:
    """What a run came to.

    nearest_photo, nearest_center: recall@1 of val, by the nearest photo of the gallery and by the head's centers.
    target_cosine … dead_centers: of val, see EmbeddingStats. uniform, untrained, collapsed: reference losses
    of the loss at the end. off_plateau: epoch at which TOLD of the training photos were told, None if never.
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
        "off_plateau": next((line["epoch"] for line in lines if line["right"] >= TOLD), None)}


@torch.inference_mode()
def embedded(embedder: Embedder, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Embeddings (n, D) and labels (n,) of all batches, in evaluation."""
    embedder.eval()
    parts = [(embedder(batch.images, batch.jitter), batch.labels) for batch in batches]
    return torch.cat([x for x, _ in parts]), torch.cat([labels for _, labels in parts])


def share(right: Tensor) -> float:
    return right.float().mean().item()
