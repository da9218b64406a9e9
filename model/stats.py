"""Statistics that tell a stuck embedding from one that learns slowly, and class means to start centers from.

Shape suffixes: B batch, C classes, D embedding.
"""
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from arcshard.distributed import World
from model.heads import MarginHead


class EmbeddingStats:
    """Where photos lie among the class centers, over all batches given to `update`, without host sync.

    `compute` waits for the device and sums over the ranks: all must call it.
    """

    def __init__(self, num_classes: int, world: World):
        self.world = world
        self.sums = torch.zeros(4, dtype=torch.float64, device=world.device)  # photos, and sums of the three means
        self.photos, self.nearest = torch.zeros(2, num_classes, dtype=torch.int64, device=world.device)

    @torch.no_grad()
    def update(self, cos_BC: Tensor, embeddings: Tensor, labels: Tensor) -> None:
        """Add a batch: `MarginHead.cosines` of the embeddings (B, D), and labels int64 (B,) in [0, C)."""
        target_B = cos_BC.gather(1, labels[:, None]).squeeze(1)
        wrong_B = cos_BC.scatter(1, labels[:, None], -1.0).amax(1)  # with one class: the opposite direction
        norm_B = embeddings.float().norm(dim=1)
        self.sums += torch.stack([torch.ones_like(target_B), target_B, wrong_B.arccos(), norm_B]).double().sum(1)
        one_B = torch.ones_like(labels)
        self.photos.index_add_(0, labels, one_B)
        self.nearest.index_add_(0, cos_BC.argmax(1), one_B)

    def compute(self) -> dict[str, float]:
        """Means over the photos, NaN without any, and a share of the classes that have photos.

        target_cosine: to the photo's own center; wrong_angle: to the nearest other center, radians; norm: of the
        embedding; dead_centers: share of those classes whose center is the nearest of no photo.
        """
        if self.world.size > 1:
            for counted in (self.sums, self.photos, self.nearest):
                dist.all_reduce(counted)
        seen = self.photos > 0
        dead = ((self.nearest == 0) & seen).sum() / seen.sum()
        means = (self.sums[1:] / self.sums[0]).tolist()
        return {**dict(zip(("target_cosine", "wrong_angle", "norm"), means)), "dead_centers": dead.item()}


@torch.no_grad()
def class_means(embed: Callable[[Any], Tensor], batches: Iterable[Any], num_classes: int, world: World) -> Tensor:
    """Directions of the classes' mean unit embeddings, float32 (C, D) of length 1, or 0 for a class without photos.

    embed: batch -> embeddings (B, D); a batch has labels (B,) int64, -1 for no class. All ranks must call.
    """
    sums: Tensor | None = None
    for batch in batches:
        unit_BD = F.normalize(embed(batch).float())
        if sums is None:  # a last row takes photos without a class
            sums = unit_BD.new_zeros(num_classes + 1, unit_BD.shape[1])
        sums.index_add_(0, batch.labels % (num_classes + 1), unit_BD)
    assert sums is not None, "class means need photos"
    if world.size > 1:
        dist.all_reduce(sums)
    return F.normalize(sums[:num_classes])


@torch.no_grad()
def init_centers(head: MarginHead, means_CD: Tensor) -> None:
    """Turn each class's first center to the class's mean, keeping its norm; without a mean it stays, as do others.

    means_CD: from `class_means`, of all classes even if the head is sharded.
    """
    means_CD = means_CD[head.shard.classes]
    first = head.weight.unflatten(0, (-1, head.centers))[:, 0]
    first.copy_(torch.where(means_CD.any(1, keepdim=True), means_CD * first.norm(dim=1, keepdim=True), first))
