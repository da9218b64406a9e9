"""Softmax cross-entropy over cosines that never holds the B × C logits: some rows at a time, gradient at once.

A row's gradient needs nothing of other rows, so the forward pass makes both gradients while a chunk's probabilities
are in memory, and the backward pass only multiplies. Three matrix products, as in the plain form. The classes may lie
on several ranks: each takes all photos against its own centers, and the ranks merge their log-sum-exps.

Shape suffixes: B batch, N rows of a chunk, D embedding, C this rank's classes, K centers a class. Logits are held as
(C, N): their first product is then about 1.4 × as fast on a CPU as that of (N, C).
"""
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.sharding import ClassShard

# A chunk of the loss without logits: from cosines × scale to losses and their derivatives.
#
# Shape suffixes: N rows, C this rank's classes, K centers a class.


class Own(NamedTuple):
    """Where in (C, N) each row's true class stands, if it is one of this rank's."""

    labels_1N: Tensor
    held_N: Tensor

    def put(self, matrix_CN: Tensor, values_N: Tensor | float) -> None:
        """Write the values into these places; rows of another rank's classes stay."""
        if isinstance(values_N, Tensor):  # a number stays one: as a tensor it would be copied, and the host would wait
            values_N = values_N.to(matrix_CN.dtype)
        before = matrix_CN.gather(0, self.labels_1N)
        matrix_CN.scatter_(0, self.labels_1N, torch.where(self.held_N, values_N, before))


def nearest_centers(dots: Tensor, centers: int) -> tuple[Tensor, Tensor | None]:
    """(C·K, N) -> each class's highest (C, N), and which center has it, the first of equals: uint8 (C, N)."""
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
    """(C, N) -> (C·K, N), written over `dots`: the nearest center feels it, the others nothing."""
    if nearest is not None:
        for number, of_center in enumerate(dots.unflatten(0, (len(pull), -1)).unbind(1)):
            of_center.copy_(pull * (nearest == number))
    return dots


def cross_entropy(logits_CN: Tensor, own: Own, target_N: Tensor, smoothing: float, shard: ClassShard
                  ) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their derivatives by the true classes' logits (N,); those by the others replace `logits_CN`.

    The truth's own logit is left out and `target_N` added last: correcting a sum that has it would cancel.
    """
    if smoothing:
        own.put(logits_CN, 0.0)
        others_N = shard.sum(logits_CN.sum(0))
    own.put(logits_CN, -torch.inf)
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


ROWS = 128  # of a chunk, times the ranks: fewer make thin products, more need more memory (42 MB at 81,313 classes)
CUDA_ROWS = 1024  # the same on CUDA, which has room (333 MB) and reads the centers from its memory anew for each chunk
CENTERS = 1024  # of a block in a CPU's passes over the weight: 2 MB at D = 512, so that a second pass meets the cache
TINY = 1e-12  # least norm of a center, as in F.normalize


class Rows(NamedTuple):
    """What the loss knows of the photos of all ranks, rank after rank; (B,) each."""

    labels: Tensor
    """int64, the true class's place among this rank's; anything valid where it is another rank's."""
    held: Tensor
    """bool, whether it is this rank's."""
    cosines: Tensor
    """To the true class."""
    targets: Tensor
    """What stands for that cosine,"""
    slopes: Tensor
    """and its derivative by it."""
    shares: Tensor
    """What a photo counts in the sum over its rank's; 1 / B makes it a mean."""


class LossOptions(NamedTuple):
    """Options of the loss."""

    smoothing: float = 0.0
    """This part of a row's true probability is spread evenly over all classes
    (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7)."""
    focal: float = 0.0
    """γ: a row's loss L counts (1 - exp(-L))^γ times (Lin et al., "Focal loss for dense object detection", ICCV 2017);
    0 or at least 1."""


def chunked_cross_entropy(unit_BD: Tensor, weight: Tensor, scale: Tensor | float, rows: Rows, all_unit_BD: Tensor,
                   options: LossOptions = LossOptions(), shard: ClassShard | None = None) -> Tensor:
    """Sum over this rank's photos of share × cross-entropy of scale × cosines, with other cosines for the true classes.

    Equals, value and gradients, the plain form that holds all logits. A class of several centers has the cosine of
    its nearest one (Deng et al., "Sub-center ArcFace", ECCV 2020).

    Args:
        unit_BD: normalized embeddings of this rank, floating point.
        weight: this rank's centers of any norm (C, K, D), same dtype. Its gradient is that of the mean of all ranks'
            losses, if all start the backward pass with the same factor; the other gradients are of this rank's loss.
        scale: of the cosines.
        rows: of all ranks.
        all_unit_BD: embeddings of all ranks, without gradient.
        shard: of the classes; its num_classes are those of the softmax. None: all classes are here.
    """
    shard = shard or ClassShard(len(weight))
    loss: Tensor = _ChunkedCrossEntropy.apply(unit_BD, weight, scale, all_unit_BD, *rows, options, shard)
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, unit_BD: Tensor, weight: Tensor, scale: Tensor | float, all_unit_BD: Tensor, labels_B: Tensor,
                held_B: Tensor, cos_B: Tensor, target_B: Tensor, slope_B: Tensor, shares_B: Tensor,
                options: LossOptions, shard: ClassShard) -> Tensor:
        centers = weight.flatten(0, 1)
        inverse = torch.linalg.vector_norm(centers, dim=1, keepdim=True).clamp_min_(TINY).reciprocal_()
        unit_grad, weight_grad, losses, pulls = torch.empty_like(all_unit_BD), None, [], []
        step = min((CUDA_ROWS if weight.is_cuda else ROWS) * shard.size, len(all_unit_BD))
        buffer = centers.new_empty(len(centers) * step)
        for start in range(0, len(all_unit_BD), step):
            part = slice(start, start + step)
            unit_ND, own = all_unit_BD[part], Own(labels_B[None, part], held_B[part])
            dots = buffer[:len(centers) * len(unit_ND)].view(len(centers), len(unit_ND))
            logits, nearest = nearest_centers(torch.mm(centers, (unit_ND * scale).T, out=dots).mul_(inverse),
                                              weight.shape[1])
            loss_N, pull_N = cross_entropy(logits, own, scale * target_B[part], options.smoothing, shard)
            loss_N, factor_N = focal(loss_N, options.focal)
            factor_N = factor_N * shares_B[part]
            own.put(logits, pull_N * slope_B[part])
            pull = to_centers(logits, nearest, dots).mul_(inverse)
            unit_grad[part] = (pull.T @ centers) * factor_N[:, None]
            pulling_ND = unit_ND * (scale * factor_N / shard.size)[:, None]
            weight_grad = pull @ pulling_ND if weight_grad is None else weight_grad.addmm_(pull, pulling_ND)
            losses.append(loss_N * shares_B[part])
            pulls.append(pull_N * factor_N)
        assert weight_grad is not None, "a batch has photos"
        mine = slice(shard.rank * len(unit_BD), (shard.rank + 1) * len(unit_BD))
        unit_grad = shard.sum_to_rows(unit_grad)
        # d logit / d scale is the cosine, except the truth's: of that, unit_grad has slope x cosine
        scale_grad = (unit_BD * unit_grad).sum() + (torch.cat(pulls) * (target_B - slope_B * cos_B))[mine].sum()
        # Blocks suit a CPU's cache alone: on CUDA they are hundreds of launches, for a compiler over a thousand nodes.
        block = len(centers) if weight.is_cuda or torch.compiler.is_compiling() else CENTERS
        ctx.save_for_backward(unit_grad.mul_(scale), _tangential(weight_grad, centers, inverse, block), scale_grad)
        ctx.shape = weight.shape
        return torch.cat(losses)[mine].sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        unit_grad, weight_grad, scale_grad = ctx.saved_tensors
        scale_grad = scale_grad * grad if ctx.needs_input_grad[2] else None
        # In place: a second matrix of that size costs more than all else here. autograd refuses a second pass.
        return unit_grad * grad, weight_grad.mul_(grad).view(ctx.shape), scale_grad, *9 * [None]


def _tangential(weight_grad: Tensor, centers: Tensor, inverse: Tensor, block: int) -> Tensor:
    """Take from the gradient what would change a center's norm, which changes no cosine; in place, block by block."""
    for start in range(0, len(centers), block):
        part = slice(start, start + block)
        along = (weight_grad[part] * centers[part]).sum(1, keepdim=True) * inverse[part].square()
        weight_grad[part].addcmul_(centers[part], along, value=-1)
    return weight_grad
