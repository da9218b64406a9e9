"""ArcFace's behavior and refusals; what it computes is checked in test_margins and test_chunked_cross_entropy."""
import math

import numpy as np
import pytest
import torch

from model.heads import ArcFace


def made_up(batch, dim, classes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, dim, generator=g), torch.randint(classes, (batch,), generator=g),
            torch.randn(classes, dim, generator=g))


def head_of(weight, scale, margin):
    head = ArcFace(weight.shape[1], len(weight), scale=scale, margin=margin)
    with torch.no_grad():
        head.weight.copy_(weight)
    return head


def test_the_target_logit_falls_as_the_angle_grows_and_never_turns_back():
    """Along the whole half circle, the line past π − margin included."""
    theta = torch.linspace(0, math.pi, 2001)
    x = torch.stack([theta.cos(), theta.sin()], 1)
    head = head_of(torch.tensor([[1.0, 0.0], [0.0, -1.0]]), 1.0, 0.5)
    losses = torch.stack([head(row[None], torch.tensor([0])) for row in x])
    others = head.logits(x)[:, 1]
    target = others - (losses.exp() - 1).log()  # cross-entropy of two classes, solved for the target logit
    assert (target.diff() <= 2e-3).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_at_cosine_one_and_minus_one(sign):
    _, _, weight = made_up(1, 16, 5)
    head = head_of(weight, 64.0, 0.5)
    x = (sign * weight).clone().requires_grad_()
    loss = head(x, torch.arange(5))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all() and torch.isfinite(head.weight.grad).all()


def test_a_zero_embedding_gives_a_finite_loss_and_gradient():
    head = ArcFace(8, 3)
    x = torch.zeros(2, 8, requires_grad=True)
    loss = head(x, torch.tensor([0, 2]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all()


def test_autocast_around_the_head_does_not_change_it():
    x, labels, weight = made_up(6, 32, 50)
    head = head_of(weight, 45.0, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(x, labels)
    assert inside.dtype == torch.float32 and torch.equal(inside, head(x, labels))


def test_logits_are_scaled_cosines_without_margin():
    x, _, weight = made_up(4, 8, 3)
    cosines = np.array([[np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for b in weight.double().numpy()]
                        for a in x.double().numpy()])
    np.testing.assert_allclose(head_of(weight, 30.0, 0.5).logits(x).detach(), 30 * cosines, rtol=1e-5, atol=1e-5)


def test_margin_can_change_between_steps_and_is_not_stored():
    x, labels, weight = made_up(6, 8, 4)
    head = head_of(weight, 30.0, 0.5)
    with_margin = head(x, labels)
    head.set_margin(0.0)
    assert head(x, labels) < with_margin
    assert list(head.state_dict()) == ["weight"]


def test_compiles_without_a_graph_break():
    from torch._dynamo.testing import CompileCounter
    counter = CompileCounter()
    x, labels, weight = made_up(6, 8, 4)
    head = head_of(weight, 30.0, 0.5)
    compiled = torch.compile(head, backend=counter, fullgraph=True)
    losses = []
    for margin in (0.1, 0.2, 0.3):
        head.set_margin(margin)
        losses.append(compiled(x, labels).item())
    assert counter.frame_count == 1, "a new margin must not compile again"
    assert losses == sorted(losses) and losses[0] < losses[-1]


@pytest.mark.parametrize("wrong, sentence", [
    ({"margin": 1.6}, "head.margin is 1.6: give an angle"),
    ({"margin": -0.1}, "head.margin is -0.1: give an angle"),
    ({"scale": 0.0}, "head.scale is 0: give a positive number"),
])
def test_impossible_settings_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        ArcFace(4, 3, **wrong)
