"""Margin heads: (embeddings, labels) -> mean loss, in float32 under any autocast.

Shape suffixes: B photos, D embedding, C classes, K centers of a class.
"""
import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcshard.console import UserError
from arcshard.fields import check
from model.loss import LossOptions, Photos, chunked_cross_entropy
from model.margins import adapt, add_angle, add_angle_if_near, subtract
from model.sharding import ClassShard

# AdaFace
NORMS = (0.001, 100.0)  # norms count as within these bounds
START = (20.0, 100.0)  # mean and deviation before the first batch
MOMENTUM = 0.01  # of a batch in the running mean and deviation
CONCENTRATION = 0.333  # h: a norm 1 / h deviations from the mean has quality ±1


class MarginHead(nn.Module):
    """Softmax over cosines × scale, in which a margin lowers the cosine of the true class.

    Subclasses define how, in `with_margin`. The state holds `weight`, the centers (C·K, D), of which class c has rows
    c·K … c·K+K-1; and `log_scale` if the scale is learned. A sharded head has only the rows of its rank's classes; it
    loads whole states as well as its own, and `whole` is the head to save or to evaluate.

    Args:
        dim: embedding size D.
        num_classes: C.
        scale: multiplies every cosine; the softmax's temperature is 1 / scale.
        margin: see the subclass; `set_margin` changes it between steps.
        centers: K; the cosine to a class is that to its nearest center (Deng et al., "Sub-center ArcFace", ECCV 2020).
        smoothing: part in [0, 1) of a photo's true probability that is spread evenly over all classes.
        margin_factors: (C,), class c has margin × factor; None: all classes have the same margin.
        class_weights: (C,), the weight of a photo of class c in the mean; None: all the same.
        focal: 0 or at least 1: a photo's loss L counts (1 - exp(-L))^focal times (model/loss.py).
        learn_scale: start from `scale` and learn its logarithm.
        straight_through: the margin changes the loss, but the derivative of the target by the true cosine counts as 1,
            as in insightface's arcface_torch/losses.py.
        negatives: share in (0, 1] of the classes that take part in a step, chosen by `draw_classes`.
        uniform: draw the centers' numbers uniformly in ±1/√D, a norm of √⅓, instead of by Xavier's rule, where the norm
            is √(2·D / (D + C·K)).
        shard: this rank's classes; None: all.
    """

    margin: Tensor
    margin_factors: Tensor | None
    class_weights: Tensor | None
    key: Tensor

    def __init__(self, dim: int, num_classes: int, scale: float = 45.0, margin: float = 0.3, centers: int = 1,
                 smoothing: float = 0.0, margin_factors: Tensor | None = None, class_weights: Tensor | None = None, *,
                 focal: float = 0.0, learn_scale: bool = False, straight_through: bool = False, negatives: float = 1.0,
                 uniform: bool = False, shard: ClassShard | None = None):
        super().__init__()
        check_scale(scale)
        self.check_margin(margin)
        self.fixed_scale, self.centers, self.loss_options = scale, centers, LossOptions(smoothing, focal)
        self.straight_through, self.negatives = straight_through, negatives
        self.shard = shard or ClassShard(num_classes)
        # Each rank draws the numbers of all classes, so that a run begins the same with any number of ranks.
        whole = torch.empty(num_classes * centers, dim)
        nn.init.uniform_(whole, -dim**-0.5, dim**-0.5) if uniform else nn.init.xavier_uniform_(whole)
        self.weight = nn.Parameter(self.shard.own(whole).clone())
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale))) if learn_scale else None
        # Tensors, so that a schedule neither recompiles the step nor waits for the device.
        self.register_buffer("margin", torch.tensor(float(margin)), persistent=False)
        self.register_buffer("key", torch.tensor(0), persistent=False)
        self.register_buffer("margin_factors", margin_factors, persistent=False)
        self.register_buffer("class_weights", class_weights, persistent=False)

    @staticmethod
    def check_margin(margin: float) -> None:
        """Raise ValueError unless the margin is an angle in [0, π/2)."""
        check(0 <= margin < math.pi / 2, "head.margin", margin, "give an angle in radians, 0 or more, below pi/2")

    @property
    def scale(self) -> float | Tensor:
        """The factor of the cosines; if it is learned, a scalar tensor without gradient."""
        return self.fixed_scale if self.log_scale is None else self.log_scale.detach().exp()

    @property
    def smoothing(self) -> float:
        """Part of a photo's true probability that is spread over all classes."""
        return self.loss_options.smoothing

    @property
    def num_centers(self) -> int:
        """C·K, over all ranks."""
        return self.shard.num_classes * self.centers

    @property
    def sharded_parameters(self) -> list[nn.Parameter]:
        """Parameters of which each rank holds a part; no other rank has their gradient."""
        return [self.weight] if self.shard.size > 1 else []

    @property
    def statistics(self) -> list[Tensor]:
        """Buffers that training changes and the next loss reads; data-parallel ranks must begin each update alike."""
        return []

    def with_margin(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        """The targets that replace the true classes' cosines, and their derivatives by them (model/margins.py)."""
        raise NotImplementedError

    def set_margin(self, margin: float) -> None:
        """Use `margin` from the next call on."""
        self.check_margin(margin)
        self.margin.fill_(margin)

    def set_key(self, key: int) -> None:
        """Draw the classes of `negatives` by this key, 0 <= key < 2^63, from the next call on."""
        self.key.fill_(key)

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Cosines to the nearest centers of this rank's classes, float32 (B, C), clamped to [-1, 1]."""
        with torch.autocast(embeddings.device.type, enabled=False):
            weight = _wide(self.weight)
            cos = F.linear(F.normalize(embeddings.to(weight.dtype)), F.normalize(weight)).clamp(-1, 1)
            return cos if self.centers == 1 else cos.unflatten(1, (-1, self.centers)).amax(2)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Cosines × scale without a margin, float32 (B, C), to rank classes by."""
        return self.cosines(embeddings) * self.scale

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of this rank's photos, scalar, float32 (float64 if the weight is).

        embeddings: (B, D), of any norm; labels: int64 (B,) in [0, C). The ranks of a sharded head must have equal B;
        the gradient of their weight is that of the mean over all ranks, the other gradients are of their own loss.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            weight = _wide(self.weight).unflatten(0, (-1, self.centers))
            x_BD = embeddings.to(weight.dtype)
            with torch.no_grad():
                all_x_BD, labels = self.shard.gather(x_BD.detach()), self.shard.gather(labels)
                places = labels - self.shard.classes.start
                held = (places >= 0) & (places < len(weight))
                places = places.clamp(0, len(weight) - 1)
            shard = self.shard
            if self.negatives < 1:
                weight, places, shard = self._drawn(weight, places, held)
            with torch.no_grad():
                photos = self._photos(all_x_BD, weight, labels, places, held, len(x_BD))
            scale = self.fixed_scale if self.log_scale is None else self.log_scale.exp()
            return chunked_cross_entropy(F.normalize(x_BD), weight, scale, photos, self.loss_options, shard)

    def whole(self) -> "MarginHead":
        """This head with the centers of all ranks, which must all call; itself if it is not sharded."""
        if self.shard.size == 1:
            return self
        weight = nn.Parameter(self.shard.whole(self.weight.detach()), requires_grad=False)
        head = copy.deepcopy(self, {id(self.weight): weight})
        head.shard = ClassShard(self.shard.num_classes)
        return head

    def _photos(self, x_BD: Tensor, weight: Tensor, labels_B: Tensor, places_B: Tensor, held_B: Tensor, batch: int
                ) -> Photos:
        units_BD = F.normalize(x_BD)
        cos_BK = torch.einsum("bd,bkd->bk", units_BD, F.normalize(weight[places_B], dim=2))
        cos_B = self.shard.sum(torch.where(held_B, cos_BK.amax(1), 0.0)).clamp(-1, 1)
        target_B, slope_B = self.with_margin(cos_B, self._margins(labels_B), x_BD.norm(dim=1))
        if self.straight_through:
            slope_B = torch.ones_like(slope_B)
        weights_B = torch.full_like(cos_B, 1 / batch)
        if self.class_weights is not None:
            weights_B = weights_B * self.class_weights[labels_B]
        return Photos(units_BD, places_B, held_B, cos_B, target_B, slope_B, weights_B)

    def _drawn(self, weight: Tensor, places_B: Tensor, held_B: Tensor) -> tuple[Tensor, Tensor, ClassShard]:
        """The centers that take part, the photos' places among them, and the shard of that many classes."""
        numbers = [min(count, max(math.ceil(self.negatives * count), len(places_B))) for count in self.shard.counts()]
        drawn = draw_classes(self.key, self.shard.classes.start, len(weight), numbers[self.shard.rank], places_B,
                             held_B)
        places_B = torch.searchsorted(drawn, places_B).clamp_max(len(drawn) - 1)
        return weight[drawn], places_B, replace(self.shard, num_classes=sum(numbers))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and len(weight) == self.num_centers:
            state_dict[f"{prefix}weight"] = self.shard.own(weight)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def cost_of_one(self, images_C: Tensor | np.ndarray) -> float:
        """What the margin takes from a cosine of 1, averaged over the images, of which class c has images_C[c]."""
        images_C = torch.as_tensor(images_C, device=self.margin.device)
        classes_C = torch.arange(len(images_C), device=images_C.device)
        cost_C = 1 - self.target_of_one(self._margins(classes_C).expand(len(images_C)))
        return float((cost_C * images_C).sum() / images_C.sum())

    def target_of_one(self, margin_C: Tensor) -> Tensor:
        """The target that replaces a cosine of 1 under each margin."""
        ones = torch.ones_like(margin_C)
        return self.with_margin(ones, margin_C, ones)[0]

    def _margins(self, labels: Tensor) -> Tensor:
        return self.margin if self.margin_factors is None else self.margin * self.margin_factors[labels]


class ArcFace(MarginHead):
    """`margin` in [0, π/2) radians is added to the angle to the true class: model/margins.py, add_angle.

    easy: only if the cosine is positive.
    """

    def __init__(self, *args: Any, easy: bool = False, **options: Any):
        super().__init__(*args, **options)
        self.easy = easy

    def with_margin(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        return (add_angle_if_near if self.easy else add_angle)(cos_B, margin_B)


class CosFace(MarginHead):
    """`margin` in [0, 1] is subtracted from the true class's cosine: model/margins.py, subtract."""

    @staticmethod
    def check_margin(margin: float) -> None:
        """Raise ValueError unless the margin is in [0, 1]."""
        check(0 <= margin <= 1, "head.margin", margin, "give 0 to 1, since it is subtracted from a cosine")

    def with_margin(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        return subtract(cos_B, margin_B)


class AdaFace(MarginHead):
    """Target cos(θ − margin·quality) − margin·(1 + quality); quality in [-1, 1] is how the embedding's norm compares to
    recent norms, so that hard photos of low quality are spared.

    margin in [0, π/2). The state also holds the running `norm_mean` and `norm_std`, updated before use and only in
    training. Each rank counts its own batches, and rank 0's `statistics` are to be shared before each update; the ranks
    of a sharded head count all batches.
    Source: Kim et al., CVPR 2022, with the constants of mk-minchul/AdaFace, head.py.
    """

    norm_mean: Tensor
    norm_std: Tensor

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.register_buffer("norm_mean", torch.tensor(START[0]))
        self.register_buffer("norm_std", torch.tensor(START[1]))

    @property
    def statistics(self) -> list[Tensor]:
        return [self.norm_mean, self.norm_std]

    def with_margin(self, cos_B: Tensor, margin_B: Tensor, norm_B: Tensor) -> tuple[Tensor, Tensor]:
        norm_B = norm_B.clamp(*NORMS)
        if self.training:
            self.norm_mean.lerp_(norm_B.mean(), MOMENTUM)
            self.norm_std.lerp_(norm_B.std(correction=min(1, len(norm_B) - 1)), MOMENTUM)  # 0 for one photo
        deviations = (norm_B - self.norm_mean) / (self.norm_std + 1e-3)
        return adapt(cos_B, margin_B, (CONCENTRATION * deviations).clamp(-1, 1))

    def target_of_one(self, margin_C: Tensor) -> Tensor:
        """That of a photo of average quality."""
        return adapt(torch.ones_like(margin_C), margin_C, torch.zeros_like(margin_C))[0]


def check_scale(scale: float) -> None:
    """Raise ValueError unless the scale is positive and finite."""
    check(0 < scale < math.inf, "head.scale", scale, "give a positive number")


def _wide(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


# Drawing the classes of a step by a counter: the same key draws the same ones, on any device.
#
# Source: An et al., "Killing two birds with one stone: Efficient and robust training of face recognition CNNs by
# Partial FC", CVPR 2022.

MASK = {bits: (1 << 64 - bits) - 1 for bits in (27, 30, 31)}  # makes >> of a signed word that of an unsigned one


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


GOLDEN, FIRST, SECOND = (_signed(word) for word in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix64(x: Tensor) -> Tensor:
    """SplitMix64's finalizer on the bits of int64 words: as in loader/draws.py, but on the batch's device."""
    x = (x ^ (x >> 30 & MASK[30])) * FIRST
    x = (x ^ (x >> 27 & MASK[27])) * SECOND
    return x ^ (x >> 31 & MASK[31])


def draw_classes(key: Tensor, first: int, count: int, number: int, places_B: Tensor, held_B: Tensor) -> Tensor:
    """Draw `number` of the classes first … first + count - 1, as rising places int64 (number,) among these.

    Includes all classes of the batch, if number >= B; the others are drawn uniformly. No host sync.

    Args:
        key: int64 scalar.
        places_B: place of each photo's class, 0 … count - 1, where held_B; anything elsewhere.
    """
    classes = torch.arange(first, first + count + 1, device=places_B.device)  # the last takes what is not held
    scores = mix64(mix64(key + GOLDEN) + classes * GOLDEN) & torch.iinfo(torch.int64).max
    scores.scatter_(0, torch.where(held_B, places_B, count), torch.iinfo(torch.int64).max)
    return scores[:count].topk(number, sorted=False).indices.sort().values


# Heads for another list of classes.


def remap_centers(head: MarginHead, old: dict[str, Any], old_classes: int, row: np.ndarray) -> None:
    """Give class c the centers that class row[c] had in another head; where row[c] is -1 it keeps its own.

    Args:
        old: state of that head, of `old_classes` classes; what else it holds is loaded if this kind of head has it.
        row: int64 (C,).

    Raises UserError unless both heads have as many centers for each class, of one size.
    """
    ours = (head.centers, head.weight.shape[1])
    theirs = (len(old["weight"]) // old_classes, old["weight"].shape[1])
    if ours != theirs:
        raise UserError(f"the stage has {ours[0]} centers of size {ours[1]} for each class, but the stage before had "
                        f"{theirs[0]} of {theirs[1]}: set classes: new")
    row, centers = row[head.shard.classes], head.weight.detach().unflatten(0, (-1, head.centers))
    centers[row >= 0] = old["weight"].unflatten(0, (-1, head.centers))[row[row >= 0]].to(centers.device)
    head.load_state_dict({k: v for k, v in old.items() if k != "weight" and k in head.state_dict()}, strict=False)
