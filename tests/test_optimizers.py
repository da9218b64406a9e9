"""An update with a bad gradient changes nothing; a bad loss on one rank is a bad gradient everywhere."""
import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from training.config import TrainConfig
from training.optim import build_optimizer, clip, parameter_groups, set_lr, step_unless
from training.step import KeptBuffers, poison


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.backbone(x).mean((2, 3))).square().mean()


def updated(module, optimizer, buffers, images, bad):
    module(images).backward()
    step_unless(torch.tensor(bad), optimizer)
    buffers.restore_if_bad(torch.tensor(bad))


def reference(c, module):
    options = {"lr": 0.1, "weight_decay": c.weight_decay}
    return torch.optim.SGD(module.parameters(), momentum=0.9, nesterov=c.nesterov, **options) if c.optimizer == "sgd" \
        else torch.optim.AdamW(module.parameters(), betas=(0.9, 0.999), **options)


@pytest.mark.parametrize("options", [
    {}, {"nesterov": False}, {"decay_on": "all", "weight_decay": 0.01}, {"optimizer": "adamw"},
    {"optimizer": "adamw", "decay_on": "all", "weight_decay": 0.1}], ids=str)
def test_bad_updates_leave_no_trace(options):
    """Good, bad and good updates equal torch's plain optimizer with the good ones alone, in float64."""
    torch.manual_seed(0)
    ours = Tiny().double()
    theirs = copy.deepcopy(ours)
    c = TrainConfig(**{"lr": 0.1, "weight_decay": 0.0, **options})
    optimizer = build_optimizer(ours, ours.backbone, c)
    plain, buffers = reference(c, theirs), KeptBuffers(ours)
    for number in range(6):
        images = torch.randn(5, 3, 6, 6, dtype=torch.float64)
        bad = number in (0, 3)
        updated(ours, optimizer, buffers, images * torch.nan if bad else images, bad)
        if not bad:
            theirs(images).backward()
            plain.step()
            plain.zero_grad()
    for key, other in theirs.state_dict().items():
        if "num_batches" not in key:
            torch.testing.assert_close(ours.state_dict()[key], other, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize("loss, bad", [(1.0, False), (torch.inf, True), (torch.nan, True)])
def test_a_bad_loss_poisons_even_a_gradient_that_is_finite(loss, bad):
    """Gradients of constants are 0 however bad the loss."""
    weight = torch.ones(3, requires_grad=True)
    value = weight.sum() * 0 + loss
    value.backward(poison(value.detach()))
    assert clip([weight], [], 5.0).item() is bad


def test_without_a_limit_gradients_stay_as_they_are():
    weight = torch.randn(3, 4, requires_grad=True)
    (1e6 * weight.square().sum()).backward()
    before = weight.grad.clone()
    assert not clip([weight], [], torch.inf) and torch.equal(weight.grad, before)


def test_groups_share_out_rate_and_decay():
    module = Tiny()
    module.head.bias.requires_grad = False
    c = TrainConfig(lr=0.2, backbone_lr=0.5, weight_decay=1e-3)
    groups = parameter_groups(module, module.backbone, c)
    assert [(len(g["params"]), g["lr"], g["weight_decay"]) for g in groups] == [
        (1, 0.1, 1e-3), (2, 0.1, 0.0), (1, 0.2, 1e-3), (0, 0.2, 0.0)]
    groups = parameter_groups(module, module.backbone, replace(c, decay_on="all"))
    assert [g["weight_decay"] for g in groups] == [1e-3] * 4
    optimizer = build_optimizer(module, module.backbone, c)
    set_lr(optimizer, 0.4)
    assert [g["lr"] for g in optimizer.param_groups] == [0.2, 0.2, 0.4, 0.4]
