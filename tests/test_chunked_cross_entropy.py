"""The loss that holds no logits, against the plain form with all of them, in float64 by autograd and arccos."""
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.nn.functional import normalize, one_hot
from torch.utils._python_dispatch import TorchDispatchMode

from model import AdaFace, ArcFace, CosFace
from model.loss import BLOCK, CHUNK, _without_radial

HEADS = {"arcface": ArcFace, "easy": ArcFace, "cosface": CosFace, "adaface": AdaFace}


class Case(NamedTuple):
    x: torch.Tensor
    weight: torch.Tensor  # (C, K, D)
    labels: torch.Tensor
    kind: str
    margins: torch.Tensor  # (C,)
    weights: torch.Tensor  # (C,)
    scale: float
    smoothing: float
    focal: float = 0.0
    straight_through: bool = False


def case(batch, dim, classes, centers, kind, scale, smoothing, seed=0, **options):
    g = torch.Generator().manual_seed(seed)
    return Case(torch.randn(batch, dim, generator=g).double(), torch.randn(classes, centers, dim, generator=g).double(),
                torch.randint(classes, (batch,), generator=g), kind, torch.rand(classes, generator=g) * 0.6,
                torch.rand(classes, generator=g) + 0.5, scale, smoothing, **options)


cases = st.builds(case, st.integers(1, CHUNK + 3), st.integers(8, 24), st.integers(1, 40), st.integers(1, 3),
                  st.sampled_from(sorted(HEADS)), st.floats(1, 60), st.sampled_from([0.0, 0.1, 0.7]),
                  st.integers(0, 999), focal=st.sampled_from([0.0, 1.0, 2.0, 3.5]), straight_through=st.booleans())


def plain(c, x, weight, scale):
    """Every logit, by the definitions; AdaFace with its starting statistics."""
    cos = (x / x.norm(dim=1, keepdim=True)) @ (weight / weight.norm(dim=2, keepdim=True)).flatten(0, 1).T
    cos = cos.unflatten(1, weight.shape[:2]).amax(2)
    margin = c.margins[c.labels, None].double()
    turn, less = {"arcface": (margin, 0.0), "easy": (margin, 0.0), "cosface": (None, margin),
                  "adaface": (None, None)}[c.kind]
    if c.kind == "adaface":
        quality = (0.333 * (x.detach().norm(dim=1, keepdim=True) - 20) / (100 + 1e-3)).clamp(-1, 1)
        turn, less = -margin * quality, margin + margin * quality
    moved = cos - less if c.kind == "cosface" else turned(cos, turn) - less
    if c.kind == "easy":
        moved = torch.where(cos > 0, moved, cos)
    if c.straight_through:
        moved = cos + (moved - cos).detach()
    logits = scale * torch.where(one_hot(c.labels, len(weight)).bool(), moved, cos)
    truth = one_hot(c.labels, len(weight)).double() * (1 - c.smoothing) + c.smoothing / len(weight)
    losses = logits.logsumexp(1) - (truth * logits).sum(1)
    if c.focal:
        losses = (1 - (-losses).exp()) ** c.focal * losses
    return (losses * c.weights[c.labels].double()).sum() / len(x)


def turned(cos, by):
    theta = cos.arccos()  # its derivative is infinite at ±1: for dimensions in which no cosine comes near
    return torch.where(theta + by > math.pi, cos - by * by.sin(), (theta + by).clamp_min(0).cos())


def expected(c, factor=1.0):
    """Loss and its gradients by embeddings, weight and logarithm of the scale."""
    x, weight = c.x.clone().requires_grad_(), c.weight.clone().requires_grad_()
    log_scale = torch.tensor(math.log(c.scale)).double().requires_grad_()  # rounded as the head's
    loss = plain(c, x, weight, log_scale.exp())
    (factor * loss).backward()
    return loss.detach(), x.grad, weight.grad, log_scale.grad


def head_of(c, **options):
    if c.kind == "easy":
        options["easy"] = True
    head = HEADS[c.kind](c.x.shape[1], len(c.weight), scale=c.scale, margin=0.5, centers=c.weight.shape[1],
                         smoothing=c.smoothing, margin_factors=c.margins / 0.5, class_weights=c.weights, focal=c.focal,
                         straight_through=c.straight_through, learn_scale=True, **options).eval()
    with torch.no_grad():
        head.weight.copy_(c.weight.flatten(0, 1))
    return head


def found(c, head, factor=1.0):
    x = c.x.to(head.weight.dtype, copy=True).requires_grad_()
    loss = head(x, c.labels)
    (factor * loss).backward()
    return loss.detach(), x.grad, head.weight.grad.view_as(c.weight), head.log_scale.grad


def relative(found, truth, least=1e-2):
    return float((found.double() - truth).norm() / truth.norm().clamp_min(least))


@given(cases, st.sampled_from([-2.5, 0.3, 1.0]))
@example(case(1, 19, 9, 3, "adaface", 30.0, 0.0, 372), 1.0)  # one photo, classified well: little gradient is left
@settings(max_examples=60)
def test_every_head_equals_the_plain_form_to_float32_whatever_the_incoming_gradient(c, factor):
    rounding = 1e-5 * max(1, c.scale / 8)  # logits of ±scale round to scale × 2^-24
    (loss, *grads), (true_loss, *true_grads) = found(c, head_of(c), factor), expected(c, factor)
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-5, abs=1e-5)
    least = max(1e-2, abs(factor) * c.scale / len(c.x) / c.x.norm(dim=1).mean().item() / 4)  # ¼ of a wrong photo's
    assert all(relative(ours, true, least) < rounding for ours, true in zip(grads[:2], true_grads))
    assert grads[2].item() == pytest.approx(true_grads[2].item(), rel=1e-3, abs=abs(factor) * c.scale * rounding)


@given(cases, st.sampled_from([-2.5, 0.3, 1.0]))
@settings(max_examples=60)
def test_in_float64_every_head_equals_the_plain_form(c, factor):
    for ours, true in zip(found(c, head_of(c).double(), factor), expected(c, factor)):
        torch.testing.assert_close(ours, true, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batch, dim, classes, centers, smoothing", [
    (1, 1, 1, 1, 0.0), (CHUNK, 5, 7, 1, 0.1), (CHUNK + 1, 4, BLOCK + 1, 1, 0.0), (2 * CHUNK, 3, BLOCK // 2, 3, 0.2)])
def test_in_float64_it_equals_the_plain_form_across_the_edges_of_chunks(batch, dim, classes, centers, smoothing):
    c = case(batch, dim, classes, centers, "cosface", 30.0, smoothing)
    for ours, true in zip(found(c, head_of(c).double()), expected(c)):
        torch.testing.assert_close(ours, true, rtol=1e-6, atol=1e-8)


class Watch(TorchDispatchMode):
    """The names of the operations, and the size of the largest tensor that one of them made."""

    def __init__(self):
        super().__init__()
        self.largest, self.names = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        self.names.add(func.name())
        self.largest = max([self.largest, *(t.numel() for t in torch.utils._pytree.tree_leaves(out)
                                            if isinstance(t, torch.Tensor))])
        return out


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_no_tensor_grows_with_batch_times_classes_and_the_host_reads_none(kind):
    c = case(16 * CHUNK, 4, 1000, 3, kind, 30.0, 0.1)
    head, x = head_of(c).train(), c.x.float().requires_grad_()
    with Watch() as watch:
        head(x, c.labels).backward()
    assert {"aten::mm.out", "aten::addmm_"} <= watch.names and head.weight.grad is not None
    assert watch.largest == CHUNK * 1000 * 3
    assert not {"aten::_local_scalar_dense", "aten::item", "aten::nonzero"} & watch.names


@pytest.mark.parametrize("kind", sorted(HEADS))
@pytest.mark.parametrize("centers, options", [
    (1, {}), (3, {}), (1, {"focal": 1.0}), (1, {"straight_through": True, "focal": 2.0, "smoothing": 0.1}),
    (3, {"learn_scale": True, "smoothing": 0.1}), (1, {"negatives": 0.5})])
def test_loss_and_gradients_are_finite_at_the_ends_for_zeros_for_one_class_and_under_autocast(kind, centers, options):
    for classes in (1, 5):
        for x in (torch.eye(5), -torch.eye(5), torch.zeros(5, 5)):
            head = HEADS[kind](5, classes, scale=64.0, margin=0.5, centers=centers, **options,
                               **({"easy": True} if kind == "easy" else {}))
            with torch.no_grad():
                head.weight.copy_(torch.eye(5)[:classes].repeat_interleave(centers, 0))
            x = x.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16):
                loss = head(x, torch.arange(5) % classes)
            loss.backward()
            assert loss.dtype == torch.float32 and loss >= 0
            assert all(torch.isfinite(t).all() for t in (loss, x.grad, *(p.grad for p in head.parameters())))


def test_three_centers_of_all_203_094_classes_equal_the_plain_form_under_autocast():
    """The 3rd place's head of 2020, 609,282 centers, in few dimensions."""
    c = case(3, 8, 203_094, 3, "arcface", 30.0, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        loss, *grads = found(c, head_of(c))
    true_loss, *true_grads = expected(c)
    assert loss.item() == pytest.approx(true_loss.item(), rel=1e-5)
    assert all(relative(ours, true) < 1e-4 for ours, true in zip(grads[:2], true_grads))


def test_the_gradient_is_handed_over_once_and_a_second_pass_is_refused():
    """A second matrix as large as the weight would be the most expensive part of a small batch."""
    head = head_of(case(4, 6, 9, 1, "arcface", 30.0, 0.0))
    loss = head(torch.randn(4, 6), torch.arange(4))
    saved = {t.untyped_storage().data_ptr() for t in loss.grad_fn.saved_tensors}
    loss.backward()
    assert head.weight.grad.untyped_storage().data_ptr() in saved
    again = head(torch.randn(4, 6), torch.arange(4))
    again.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        again.backward()


def test_micro_batches_average_to_the_whole_batch_with_class_weights_too():
    c = case(12, 6, 9, 2, "arcface", 30.0, 0.1)
    head, x = head_of(c), c.x.float()
    parts = [head(x[part], c.labels[part]) for part in (slice(0, 4), slice(4, 8), slice(8, 12))]
    torch.testing.assert_close(sum(parts) / 3, head(x, c.labels))


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_every_head_compiles_without_a_graph_break_backward_included(kind):
    c = case(CHUNK + 6, 8, 11, 2, kind, 30.0, 0.1)
    head, x = head_of(c).train(), c.x.float()
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    grads = []
    for call in (compiled, head_of(c).train()):
        given_x = x.clone().requires_grad_()
        call(given_x, c.labels).backward()
        grads.append(given_x.grad)
    torch.testing.assert_close(*grads)


def test_compiled_the_number_of_nodes_does_not_grow_with_the_classes():
    counts = []

    def count(graph, inputs):
        counts.append(len(graph.graph.nodes))
        return make_boxed_func(graph.forward)

    for classes in (100, 20 * BLOCK):
        torch.compiler.reset()
        head = torch.compile(ArcFace(8, classes), backend=aot_autograd(fw_compiler=count), fullgraph=True)
        head(torch.randn(4, 8), torch.arange(4)).backward()
    assert counts[:2] == counts[2:] and counts[0] < 200


@pytest.mark.parametrize("block", [BLOCK, 2 * BLOCK + 5])
def test_a_gradient_along_a_center_is_taken_away_in_one_pass_and_in_blocks(block):
    gradient, centers = torch.randn(2, 2 * BLOCK + 5, 64, generator=torch.Generator().manual_seed(0))
    unit = normalize(centers.double())
    expected = gradient.double() - (gradient.double() * unit).sum(1, keepdim=True) * unit
    found = _without_radial(gradient, centers, 1 / centers.norm(dim=1, keepdim=True), block)
    assert found is gradient
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
