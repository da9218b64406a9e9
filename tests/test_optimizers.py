"""An update with a bad gradient changes nothing; a bad loss on one rank is a bad gradient everywhere."""
import copy
from dataclasses import replace

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from timm.utils import dispatch_clip_grad
from torch import nn

from model import ArcFace
from training.config import TrainConfig
from training.optim import build_optimizer, clip, parameter_groups, set_lr, step_unless
from training.schedules import lr_factor
from training.step import KeptBuffers, Step, poison


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
    return torch.optim.SGD(module.parameters(), momentum=c.momentum, nesterov=c.nesterov and c.momentum > 0,
                           **options) if c.optimizer == "sgd" \
        else torch.optim.AdamW(module.parameters(), betas=(0.9, 0.999), **options)


@pytest.mark.parametrize("options", [
    {}, {"nesterov": False}, {"momentum": 0.0, "weight_decay": 1e-4, "decay_on": "all"},
    {"decay_on": "all", "weight_decay": 0.01}, {"optimizer": "adamw"},
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
    step = Step(nn.Linear(3, 4), ArcFace(4, 5))
    value = sum(p.sum() for p in step.parameters()) * 0 + loss
    value.backward(poison(value.detach()))
    assert clip(step, TrainConfig()).item() is bad


CLIPS = {  # what of timm's or torch's does the same to embedder and head
    "norm": lambda step, limit: nn.utils.clip_grad_norm_(step.parameters(), limit),
    "value": lambda step, limit: nn.utils.clip_grad_value_(step.parameters(), limit),
    "adaptive": lambda step, limit: dispatch_clip_grad(step.embedder.parameters(), limit, "agc")}


@pytest.mark.parametrize("by", CLIPS)
def test_gradients_are_clipped_as_elsewhere_and_without_a_limit_stay_as_they_are(by):
    torch.manual_seed(0)
    ours = Step(nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
                ArcFace(4, 5))
    ours.head(1e3 * ours.embedder(torch.randn(8, 3, 5, 5)), torch.arange(8) % 5).backward()
    for limit in (torch.inf, 0.02):
        theirs = copy.deepcopy(ours)
        for p, q in zip(ours.parameters(), theirs.parameters()):
            q.grad = p.grad.clone()
        before = [p.grad.clone() for p in ours.parameters()]
        assert not clip(ours, TrainConfig(clip=limit, clip_by=by))
        if limit < torch.inf:
            CLIPS[by](theirs, limit)
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters()))
        assert all(torch.equal(p.grad, grad) for p, grad in zip(ours.parameters(), before)) == (limit == torch.inf)


@pytest.mark.parametrize("by", CLIPS)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_gradient_that_is_not_finite_is_seen_before_it_is_clipped(by, value):
    """Clamping makes an infinity finite."""
    step = Step(nn.Linear(3, 4), ArcFace(4, 5))
    for p in step.parameters():
        p.grad = torch.zeros_like(p)
    step.head.weight.grad[0, 0] = value
    assert clip(step, TrainConfig(clip_by=by))


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


LAYERS = {  # how many layers follow that of a parameter
    "test_vit": {"pos_embed": 6, "patch_embed.proj.weight": 6, "blocks.0.norm1.bias": 5, "blocks.4.mlp.fc1.weight": 1,
                 "blocks.5.mlp.fc1.weight": 0, "norm.weight": 0},
    "test_convnext": {"stem.0.weight": 10, "stages.0.blocks.0.conv_dw.weight": 9, "stages.3.blocks.0.gamma": 2,
                      "stages.3.blocks.1.gamma": 1, "head.norm.weight": 0},
    "resnet18": {"conv1.weight": 8, "bn1.bias": 8, "layer1.0.conv1.weight": 7, "layer4.0.bn2.weight": 1,
                 "layer4.1.conv2.weight": 0},
    "test_efficientnet": {"conv_stem.weight": 5, "blocks.0.0.conv.weight": 4, "conv_head.weight": 0}}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_moves_by_its_share_of_the_scheduled_rate(name, optimizer):
    """With every gradient 1, the first update of plain SGD and of Adam is the learning rate itself."""
    backbone = timm.create_model(name, num_classes=0, global_pool="")
    module = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(4, 2)}).double()
    c = TrainConfig(optimizer=optimizer, momentum=0.0, weight_decay=0.0, lr=1.0, backbone_lr=0.5, layer_decay=0.7)
    ours = build_optimizer(module, backbone, c)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    set_lr(ours, c.lr * lr_factor(0.55, 5.5, c))
    step_unless(torch.tensor(False), ours)
    moved = {name: before[name] - p.detach() for name, p in module.named_parameters()}
    for parameter, above in LAYERS[name].items():
        torch.testing.assert_close(moved[f"backbone.{parameter}"], 0.5 * 0.5 * 0.7 ** above
                                   * torch.ones_like(moved[f"backbone.{parameter}"]), msg=parameter)
    torch.testing.assert_close(moved["head.weight"], torch.full_like(moved["head.weight"], 0.5))
    assert len({round(float(move.mean()), 6) for move in moved.values()}) == max(LAYERS[name].values()) + 2


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("decay_on", ["weights", "all"])
def test_decay_spares_what_timm_spares(name, decay_on):
    """Its groups of the same backbone, by name of the parameter."""
    backbone = timm.create_model(name, num_classes=0, global_pool="")
    module = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(4, 2)})
    ours = parameter_groups(module, backbone, TrainConfig(weight_decay=0.1, decay_on=decay_on, layer_decay=0.7))
    spared = getattr(backbone, "no_weight_decay", set)() if decay_on == "weights" else ()
    theirs = param_groups_layer_decay(backbone, 0.1, spared, weight_decay_exclude_1d=decay_on == "weights",
                                      layer_decay=0.7)
    names = {id(p): name for name, p in backbone.named_parameters()}
    found, expected = ({names[id(p)]: (group["weight_decay"], group[share]) for group in groups
                        for p in group["params"] if id(p) in names}
                       for groups, share in ((ours, "lr_share"), (theirs, "lr_scale")))
    assert found == expected and len(found) == len(names)
