"""Softmax cross-entropy over cosines that never holds the B × C logits: a few rows at a time, gradient at once.

A row's gradient needs nothing of other rows, so the forward pass makes both gradients while a chunk's probabilities
are in memory, and the backward pass only multiplies. Three matrix products, as in the plain form.

Shape suffixes: B batch, N rows of a chunk, D embedding, C classes, K centres a class.
"""
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS = 64  # of a chunk: fewer make thin products, more need more memory (20.8 MB of logits at 81,313 classes)
CENTRES = 4096  # of a block in passes over the weight: 8 MB at D = 512, so that a second pass meets the cache
TINY = 1e-12  # least norm of a centre, as in F.normalize


def no_logits_loss(unit_BD: Tensor, weight: Tensor, labels_B: Tensor, targets: tuple[Tensor, Tensor],
                   shares_B: Tensor, scale: float, smoothing: float = 0.0) -> Tensor:
    """Sum over the batch of share × cross-entropy of scale × cosines, with other cosines for the true classes.

    Equals, value and gradients, the plain form that holds all logits. A class of several centres has the cosine of
    its nearest one (Deng et al., "Sub-center ArcFace", ECCV 2020).

    Args:
        unit_BD: normalised embeddings, floating point.
        weight: centres of any norm (C, K, D), same dtype.
        labels_B: int64 in [0, C).
        targets: (B,) each: what stands for the cosine of the true class, and its derivative by that cosine.
        shares_B: what a row counts in the sum; 1 / B makes it a mean.
        scale: of the cosines.
        smoothing: this part of a row's true probability is spread evenly over all classes
            (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016, section 7).
    """
    loss: Tensor = _NoLogits.apply(unit_BD, weight, labels_B, *targets, shares_B, scale, smoothing)
    return loss


class _NoLogits(torch.autograd.Function):

    @staticmethod
    def forward(ctx: Any, unit_BD: Tensor, weight: Tensor, labels_B: Tensor, target_B: Tensor, slope_B: Tensor,
                shares_B: Tensor, scale: float, smoothing: float) -> Tensor:
        rows_D = weight.flatten(0, 1)
        inverse = torch.linalg.vector_norm(rows_D, dim=1).clamp_min_(TINY).reciprocal_()
        unit_grad, weight_grad, losses = torch.empty_like(unit_BD), torch.zeros_like(rows_D), []
        for start in range(0, len(unit_BD), ROWS):
            part = slice(start, start + ROWS)
            scaled_ND, labels_N1 = unit_BD[part] * scale, labels_B[part, None]
            logits, nearest = _class_logits((scaled_ND @ rows_D.T).mul_(inverse), weight.shape[1])
            logits.scatter_(1, labels_N1, scale * target_B[part, None])
            loss_N, pull = _cross_entropy(logits, labels_N1, smoothing)
            pull.scatter_(1, labels_N1, pull.gather(1, labels_N1) * slope_B[part, None])
            pull = _to_centres(pull, nearest, weight.shape[1]).mul_(inverse)
            share_N1 = shares_B[part, None]
            unit_grad[part] = (pull @ rows_D) * (scale * share_N1)
            weight_grad.addmm_(pull.T, scaled_ND * share_N1)
            losses.append(loss_N * shares_B[part])
        ctx.centers = weight.shape[1]
        ctx.save_for_backward(unit_grad, weight_grad, rows_D, inverse)
        return torch.cat(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        unit_grad, pulled, rows_D, inverse = ctx.saved_tensors
        weight_grad = torch.empty_like(pulled)
        for start in range(0, len(rows_D), CENTRES):
            part = slice(start, start + CENTRES)
            # what changes a centre's norm changes no cosine: that part of the gradient goes
            along = (pulled[part] * rows_D[part]).sum(1, keepdim=True) * inverse[part, None].square()
            torch.addcmul(pulled[part], rows_D[part], along, value=-1, out=weight_grad[part]).mul_(grad)
        return unit_grad * grad, weight_grad.unflatten(0, (-1, ctx.centers)), *6 * [None]


def _class_logits(logits: Tensor, centers: int) -> tuple[Tensor, Tensor | None]:
    """(N, C·K) -> each class's highest, and which centre has it: (N, C) and (N, C, 1)."""
    if centers == 1:
        return logits, None
    best, nearest = logits.unflatten(1, (-1, centers)).max(2, keepdim=True)
    return best.squeeze(2), nearest


def _to_centres(pull: Tensor, nearest: Tensor | None, centers: int) -> Tensor:
    """(N, C) -> (N, C·K): the nearest centre feels it, the others nothing."""
    if nearest is None:
        return pull
    return pull.new_zeros(*pull.shape, centers).scatter_(2, nearest, pull[:, :, None]).flatten(1)


def _cross_entropy(logits: Tensor, labels_N1: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Losses (N,) and their derivative by the logits (N, C)."""
    log_p = logits.log_softmax(1)
    loss_N = -(1 - smoothing) * log_p.gather(1, labels_N1).squeeze(1)
    if smoothing:
        loss_N -= smoothing * log_p.mean(1)
    pull = log_p.exp_()
    if smoothing:
        pull -= smoothing / pull.shape[1]
    return loss_N, pull.scatter_add_(1, labels_N1, pull.new_full(labels_N1.shape, smoothing - 1))
