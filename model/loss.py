"""Softmax cross-entropy over cosines that never holds the B × C logits: a chunk of photos at a time, gradients at once.

A photo's gradient needs nothing of the others, so the forward pass makes both gradients while a chunk's probabilities
are in memory, and the backward pass only multiplies. It takes three matrix products, as the plain form does. The
classes may lie on several ranks: each takes all photos against its own centers, and the ranks merge their log-sum-exps.

Shape suffixes: B photos of all ranks, N photos of a chunk, D embedding, C this rank's classes, K centers of a class.
Logits are held as (C, N): their matrix product is then about 1.4 × as fast on a CPU as that of (N, C).
"""
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.sharding import ClassShard

# Photos of a chunk, times the ranks: fewer make thin products, more need more memory (42 MB at 81,313 classes).
CHUNK = 128
CUDA_CHUNK = 1024  # the same on CUDA, which has room (333 MB) and reads the centers from its memory anew for each chunk
BLOCK = 1024  # centers in a CPU's passes over the weight: 2 MB at D = 512, so that a second pass still finds the cache
TINY = 1e-12  # least norm of a center, as in F.normalize


class LossOptions(NamedTuple):
    """Changes to the cross-entropy."""

    smoothing: float = 0.0
    """Part of a photo's true probability that is spread evenly over all classes
    (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7)."""
    focal: float = 0.0
    """γ: a photo's loss L counts (1 - exp(-L))^γ times (Lin et al., "Focal loss for dense object detection", ICCV
    2017); 0 or at least 1."""


class Photos(NamedTuple):
    """What the loss knows of the photos of all ranks, one rank after another, without gradient."""

    units: Tensor
    """Normalized embeddings, (B, D)."""
    places: Tensor
    """int64 (B,), the true class's place among this rank's classes; anything valid if it is another rank's."""
    held: Tensor
    """bool (B,), whether the true class is this rank's."""
    cosines: Tensor
    """To the true class, (B,)."""
    targets: Tensor
    """What replaces that cosine because of the margin, (B,)."""
    slopes: Tensor
    """The derivative of the target by the cosine, (B,)."""
    weights: Tensor
    """What a photo counts in the sum over its rank's, (B,); 1 / (photos of a rank) makes it a mean."""


def chunked_cross_entropy(units: Tensor, weight: Tensor, scale: Tensor | float, photos: Photos,
                          options: LossOptions = LossOptions(), shard: ClassShard | None = None) -> Tensor:
    """Sum over this rank's photos of weight × cross-entropy of scale × cosines, with targets for the true cosines.

    Value and gradients equal those of the plain form, which holds all logits. A class of several centers has the cosine
    of its nearest one (Deng et al., "Sub-center ArcFace", ECCV 2020).

    Args:
        units: normalized embeddings of this rank's photos, floating point (photos, D).
        weight: this rank's centers of any norm (C, K, D), same dtype. Its gradient is that of the mean of all ranks'
            losses, if all start the backward pass with the same factor; the other gradients are of this rank's loss.
        scale: multiplies the cosines.
        photos: of all ranks.
        shard: this rank's classes; its num_classes are those of the softmax. None: all classes.
    """
    shard = shard or ClassShard(len(weight))
    loss: Tensor = _ChunkedCrossEntropy.apply(units, weight, scale, photos, options, shard)
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, units: Tensor, weight: Tensor, scale: Tensor | float, photos: Photos, options: LossOptions,
                shard: ClassShard) -> Tensor:
        centers = weight.flatten(0, 1)
        inverse = torch.linalg.vector_norm(centers, dim=1, keepdim=True).clamp_min_(TINY).reciprocal_()
        unit_grad, weight_grad, losses, pulls = torch.empty_like(photos.units), None, [], []
        step = min((CUDA_CHUNK if weight.is_cuda else CHUNK) * shard.size, len(photos.units))
        buffer = centers.new_empty(len(centers) * step)
        for start in range(0, len(photos.units), step):
            part = slice(start, start + step)
            unit_ND, truth = photos.units[part], Truth(photos.places[None, part], photos.held[part])
            dots = buffer[:len(centers) * len(unit_ND)].view(len(centers), len(unit_ND))
            logits, nearest = nearest_centers(torch.mm(centers, (unit_ND * scale).T, out=dots).mul_(inverse),
                                              weight.shape[1])
            loss_N, pull_N = cross_entropy(logits, truth, scale * photos.targets[part], options.smoothing, shard)
            loss_N, factor_N = focal(loss_N, options.focal)
            factor_N = factor_N * photos.weights[part]
            truth.put(logits, pull_N * photos.slopes[part])
            pull = to_centers(logits, nearest, dots).mul_(inverse)
            unit_grad[part] = (pull.T @ centers) * factor_N[:, None]
            pulling_ND = unit_ND * (scale * factor_N / shard.size)[:, None]
            weight_grad = pull @ pulling_ND if weight_grad is None else weight_grad.addmm_(pull, pulling_ND)
            losses.append(loss_N * photos.weights[part])
            pulls.append(pull_N * factor_N)
        assert weight_grad is not None, "a batch must have photos"
        mine = slice(shard.rank * len(units), (shard.rank + 1) * len(units))
        unit_grad = shard.sum_to_rows(unit_grad)
        # d logit / d scale is the cosine, but the target for the true class, of which unit_grad has only slope × cosine
        away = photos.targets - photos.slopes * photos.cosines
        scale_grad = (units * unit_grad).sum() + (torch.cat(pulls) * away)[mine].sum()
        # Blocks only help a CPU's cache: on CUDA they are hundreds of launches, for a compiler over a thousand nodes.
        block = len(centers) if weight.is_cuda or torch.compiler.is_compiling() else BLOCK
        ctx.save_for_backward(unit_grad.mul_(scale), _without_radial(weight_grad, centers, inverse, block), scale_grad)
        ctx.shape = weight.shape
        return torch.cat(losses)[mine].sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unit_grad, weight_grad, scale_grad = ctx.saved_tensors
        scale_grad = scale_grad * grad if ctx.needs_input_grad[2] else None
        # In place: a second matrix of that size would cost more than all else here. autograd refuses a second pass.
        return unit_grad * grad, weight_grad.mul_(grad).view(ctx.shape), scale_grad, None, None, None


def _without_radial(weight_grad: Tensor, centers: Tensor, inverse: Tensor, block: int) -> Tensor:
    """Remove from the gradient what would change the centers' norms, which no cosine feels; in place, by blocks."""
    for start in range(0, len(centers), block):
        part = slice(start, start + block)
        along = (weight_grad[part] * centers[part]).sum(1, keepdim=True) * inverse[part].square()
        weight_grad[part].addcmul_(centers[part], along, value=-1)
    return weight_grad


# A chunk: from cosines × scale to losses and their derivatives.


class Truth(NamedTuple):
    """Where in (C, N) the photos' true classes stand, if they are this rank's."""

    places_1N: Tensor
    held_N: Tensor

    def put(self, matrix_CN: Tensor, values_N: Tensor | float) -> None:
        """Write the values into these places; photos of another rank's classes change nothing."""
        if isinstance(values_N, Tensor):  # a number is not made a tensor: the host would wait for the copy
            values_N = values_N.to(matrix_CN.dtype)
        before = matrix_CN.gather(0, self.places_1N)
        matrix_CN.scatter_(0, self.places_1N, torch.where(self.held_N, values_N, before))


def nearest_centers(dots: Tensor, centers: int) -> tuple[Tensor, Tensor | None]:
    """(C·K, N) -> the highest of each class (C, N), and which center has it, the first of equals: uint8 (C, N)."""
    if centers == 1:
        return dots, None
    of_center = dots.unflatten(0, (-1, centers)).unbind(1)
    best = of_center[0].clone()
    nearest = torch.zeros_like(best, dtype=torch.uint8)
    for number, other in enumerate(of_center[1:], start=1):
        nearest.masked_fill_(other > best, number)
        torch.maximum(best, other, out=best)
    return best, nearest


def to_centers(pull: Tensor, nearest: Tensor | None, dots: Tensor) -> Tensor:
    """(C, N) -> (C·K, N), written over `dots`: the nearest center gets the gradient, the others 0."""
    if nearest is not None:
        for number, of_center in enumerate(dots.unflatten(0, (len(pull), -1)).unbind(1)):
            of_center.copy_(pull * (nearest == number))
    return dots


def cross_entropy(logits_CN: Tensor, truth: Truth, target_N: Tensor, smoothing: float, shard: ClassShard
                  ) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their derivatives by the true classes' logits (N,); those by the others overwrite `logits_CN`.

    The true class's logit is left out of the sum and `target_N` added last: correcting a sum that has it would cancel.
    """
    if smoothing:
        truth.put(logits_CN, 0.0)
        others_N = shard.sum(logits_CN.sum(0))
    truth.put(logits_CN, -torch.inf)
    most_N = logits_CN.amax(0).clamp_min(torch.finfo(logits_CN.dtype).min)  # -inf where there is no other class
    rest_N = logits_CN.sub_(most_N).exp_().sum(0).log() + most_N
    rest_N = shard.gather(rest_N[None]).logsumexp(0)
    loss_N = torch.logaddexp(rest_N - target_N, torch.zeros_like(rest_N))
    pull_N = torch.expm1(-loss_N)  # probability - 1
    logits_CN.mul_((most_N - target_N - loss_N).exp())
    if smoothing:
        each = smoothing / shard.num_classes
        logits_CN.sub_(each)
        pull_N = pull_N + smoothing - each
        loss_N = loss_N + smoothing * target_N - each * (others_N + target_N)
    return loss_N, pull_N


def focal(loss_N: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """(1 - exp(-L))^power · L, and its derivative by L."""
    if not power:
        return loss_N, torch.ones_like(loss_N)
    missed_N = -torch.expm1(-loss_N)  # 1 - probability of the truth
    weaker_N = missed_N.pow(power - 1)
    return missed_N * weaker_N * loss_N, weaker_N * (missed_N + power * (1 - missed_N) * loss_N)
