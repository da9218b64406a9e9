"""Running statistics forget as much over micro-batches as over one batch, and stand still when held."""
import copy

import pytest
import timm
import torch
from torch import nn

from model.batchnorm import batchnorms, correct_momentum, estimate_statistics, freeze_statistics, momentum_of_part


@pytest.mark.parametrize("momentum, parts", [(0.1, 1), (0.1, 4), (0.01, 32), (1.0, 3), (0.0, 3)])
def test_parts_forget_as_much_as_one(momentum, parts):
    kept = (1 - momentum_of_part(momentum, parts)) ** parts
    assert kept == pytest.approx(1 - momentum)


def test_equal_micro_batches_move_the_average_as_one_batch_does():
    """float64; without the correction the average would be off by 2.4 times as much as it moved."""
    images = torch.randn(8, 3, 5, 5, dtype=torch.float64) * 3 + 7
    whole = nn.Sequential(nn.BatchNorm2d(3)).double()
    parts = copy.deepcopy(whole)
    correct_momentum(parts, 4)
    whole(images)
    for _ in range(4):
        parts(images)
    torch.testing.assert_close(parts[0].running_mean, whole[0].running_mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts[0].running_var, whole[0].running_var, rtol=1e-12, atol=0)


def test_an_average_over_all_batches_stays_one():
    layer = nn.BatchNorm1d(3, momentum=None)
    correct_momentum(layer, 4)
    assert layer.momentum is None


def test_held_statistics_stay_and_their_scale_learns():
    network = timm.create_model("test_efficientnet", num_classes=0)
    layers = batchnorms(network)
    assert layers and {type(layer).__name__ for layer in layers} == {"BatchNormAct2d"}
    network.train()
    freeze_statistics(network)
    before = [layer.running_mean.clone() for layer in layers]
    network(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(torch.equal(old, layer.running_mean) for old, layer in zip(before, layers))
    assert all(layer.weight.grad is not None for layer in layers) and network.training
    network.train()
    network(torch.randn(4, 3, 64, 64))
    assert not any(torch.equal(old, layer.running_mean) for old, layer in zip(before, layers))


def test_estimated_statistics_are_those_of_all_images_at_once():
    """float64 reference over one batch of 40; a second rank's sums add up."""
    layer = nn.BatchNorm2d(3)
    images = torch.randn(40, 3, 4, 4) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] + 20
    estimate_statistics([layer], (layer(part) for part in images[:20].chunk(4)),
                        lambda sums: sums + torch.cat([*moments(images[20:]), torch.ones(1).double()]) * 4)
    mean, square = moments(images)
    torch.testing.assert_close(layer.running_mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(layer.running_var.double(), square - mean.square(), rtol=1e-4, atol=0)
    before = layer.running_mean.clone()
    layer.eval()(images)
    assert torch.equal(layer.running_mean, before), "no hook stays behind"


def moments(images):
    x = images.double()
    return x.mean((0, 2, 3)), x.square().mean((0, 2, 3))
