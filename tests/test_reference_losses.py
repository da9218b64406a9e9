"""The reference losses are what ArcFace's loss really is on random and on collapsed embeddings."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from model import ArcFace, HeadConfig, build_head
from training.monitor import LINES, collapsed_loss, is_stuck, uniform_loss, untrained_loss

SETTINGS = [(64, 30.0, 0.3), (1000, 45.0, 0.3), (27_756, 45.0, 0.4), (10, 10.0, 0.0), (2, 64.0, 0.5)]


def head(num_classes: int, dim: int, scale: float, margin: float) -> ArcFace:
    torch.manual_seed(0)
    head = ArcFace(dim, num_classes, scale, margin)
    torch.nn.init.normal_(head.weight)
    return head


@pytest.mark.parametrize("num_classes, scale, margin", SETTINGS[:3])
def test_untrained_is_the_loss_of_random_directions(num_classes, scale, margin):
    dim = 512
    embeddings, labels = torch.randn(256, dim), torch.randint(num_classes, (256,))
    loss = head(num_classes, dim, scale, margin)(embeddings, labels).item()
    assert loss == pytest.approx(untrained_loss(num_classes, dim, scale, margin), abs=0.5)


@pytest.mark.parametrize("num_classes, scale, margin", SETTINGS)
def test_collapsed_is_the_loss_where_all_point_one_way(num_classes, scale, margin):
    one_way = F.normalize(torch.ones(1, 8), dim=1)
    collapsing = head(num_classes, 8, scale, margin)
    collapsing.weight.data.copy_(one_way.expand(num_classes, -1))
    loss = collapsing(one_way.expand(4, -1), torch.zeros(4, dtype=torch.int64)).item()
    assert loss == pytest.approx(collapsed_loss(num_classes, scale, 1 - math.cos(margin)), rel=1e-3)


@pytest.mark.parametrize("kind", ["arcface", "cosface", "adaface"])
@pytest.mark.parametrize("sizes", ["none", "power", "range"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_every_head_knows_what_its_margins_cost_there(kind, sizes, smoothing):
    images = np.array([1, 50, 3, 9])
    config = HeadConfig(kind=kind, scale=20.0, class_size_margin=sizes, smoothing=smoothing, centers=2)
    collapsing = build_head(config, 8, len(images), images)
    one_way = F.normalize(torch.ones(1, 8), dim=1)
    collapsing.weight.data.copy_(one_way.expand(8, -1))
    if kind == "adaface":
        collapsing.eval().norm_mean.fill_(1.0)  # of embeddings as short as these: middling quality
    level = collapsed_loss(len(images), 20.0, collapsing.cost_of_one(images), smoothing)
    labels = torch.as_tensor(np.repeat(np.arange(4), images))
    assert collapsing(one_way.expand(len(labels), -1), labels).item() == pytest.approx(level, rel=0.01)


def test_asking_for_the_cost_does_not_move_a_heads_statistics():
    head = build_head(HeadConfig(kind="adaface"), 8, 3)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    assert head.cost_of_one(np.array([1, 2, 3])) == pytest.approx(0.3)
    assert all(torch.equal(before[name], value) for name, value in head.state_dict().items())


def test_without_a_margin_collapse_is_no_better_than_a_guess():
    assert collapsed_loss(1000, 45.0, 0.0) == pytest.approx(uniform_loss(1000)) == math.log(1000)


def test_one_class_has_nothing_to_learn():
    assert collapsed_loss(1, 45.0, 0.05) == 0 == uniform_loss(1)


@pytest.mark.parametrize("losses, stuck", [
    ([9.0] * 3 + [5.5] * LINES, True), ([5.5 + 0.1 * (i % 2) for i in range(LINES)], True),
    ([5.5] * (LINES - 1), False), ([5.5] * (LINES - 1) + [5.0], False), ([9.0] * LINES, False),
    ([5.62 - 0.025 * i for i in range(LINES)], False), ([5.4 + 0.02 * i for i in range(LINES)], True)])
def test_stuck_is_near_and_flat(losses, stuck):
    """The sixth falls through the level, 0.125 in five lines; the last one rises."""
    assert is_stuck(losses, 5.5) is stuck
