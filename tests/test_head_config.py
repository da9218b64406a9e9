"""The head's options: what they build and what they refuse."""
import math

import numpy as np
import pytest
import torch

from arcshard.distributed import World
from model import AdaFace, ArcFace, CosFace, HeadConfig, build_head
from model.margins import log_weights, range_margins

SIZES = np.array([1, 4, 300])


@pytest.mark.parametrize("kind, head", [("arcface", ArcFace), ("cosface", CosFace), ("adaface", AdaFace)])
def test_each_kind_is_built_as_configured(kind, head):
    built = build_head(HeadConfig(kind=kind, scale=30.0, margin=0.2, centers=3, smoothing=0.1), 16, 5)
    assert type(built) is head and built.weight.shape == (15, 16)
    assert (built.scale, float(built.margin), built.centers, built.smoothing) == (30.0, pytest.approx(0.2), 3, 0.1)


def test_every_option_reaches_the_head():
    config = HeadConfig(learn_scale=True, margin_grad="straight-through", easy_margin=True, focal=2.0, negatives=0.25,
                        sharded=True)
    built = build_head(config, 16, 5, world=World(1, 2, torch.device("cpu")))
    assert built.easy and built.straight_through and built.loss_options.focal == 2.0 and built.negatives == 0.25
    assert float(built.scale) == pytest.approx(45.0) and built.weight.shape == (2, 16) and built.num_centers == 5
    assert build_head(HeadConfig(sharded=True), 16, 5).weight.shape == (5, 16), "one process holds all"


@pytest.mark.parametrize("init, bound", [("xavier", (6 / (64 + 3 * 400)) ** 0.5), ("uniform", 1 / 8)])
def test_centers_begin_uniform_within_the_bound_of_their_rule(init, bound):
    """Xavier's sqrt(6 / (fan in + fan out)), or 1 / sqrt(dim) as the 3rd place 2020."""
    weight = build_head(HeadConfig(init=init, centers=3), 64, 400).weight.detach()
    assert 0.99 * bound < weight.abs().max() <= bound and abs(weight.mean()) < 0.02 * bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


def test_class_sizes_become_margins_and_weights_that_the_schedule_moves_together():
    config = HeadConfig(margin=0.5, class_size_margin="range", class_weights="log")
    head = build_head(config, 8, 3, SIZES)
    torch.testing.assert_close(head.margin * head.margin_factors,
                               range_margins(torch.as_tensor(SIZES), 0.5, 0.05, 0.25))
    assert torch.equal(head.class_weights, log_weights(torch.as_tensor(SIZES)))
    head.set_margin(0.25)
    torch.testing.assert_close(head.margin * head.margin_factors,
                               range_margins(torch.as_tensor(SIZES), 0.5, 0.05, 0.25) / 2)
    assert list(head.state_dict()) == ["weight"], "sizes come from the dataset, not from a checkpoint"


def test_an_automatic_scale_follows_from_the_number_of_classes():
    assert build_head(HeadConfig(scale="auto"), 8, 1001).scale == pytest.approx(math.sqrt(2) * math.log(1000))


@pytest.mark.parametrize("sizes, found", [(None, "missing"), (np.ones(4), "of 4 classes instead of 3")])
def test_missing_class_sizes_are_refused(sizes, found):
    with pytest.raises(ValueError, match=f"class_sizes is {found}: give the number of images of each class"):
        build_head(HeadConfig(class_weights="log"), 8, 3, sizes)


@pytest.mark.parametrize("wrong, sentence", [
    ({"scale": -1.0}, "head.scale is -1: give a positive number"),
    ({"margin": 1.6}, "head.margin is 1.6: give an angle in radians"),
    ({"kind": "cosface", "margin": 1.2}, "head.margin is 1.2: give 0 to 1, since"),
    ({"margin_warmup": 1.5}, "head.margin_warmup is 1.5: give a share of the run"),
    ({"centers": 0}, "head.centers is 0: give 1 or more"),
    ({"smoothing": 1.0}, "head.smoothing is 1: give 0 or more, below 1"),
    ({"focal": 0.5}, "head.focal is 0.5: give 0, or 1 or more"),
    ({"negatives": 0.0}, "head.negatives is 0: give a share of the classes"),
    ({"kind": "cosface", "easy_margin": True}, "head.easy_margin does not go with head.kind cosface: use arcface"),
    ({"class_size_margin": "power", "size_power": 0.0}, "head.size_power is 0: give a positive number"),
    ({"class_size_margin": "range", "margin": 0.04}, "head.least_margin is 0.05: give at most head.margin"),
    ({"class_size_margin": "power", "margin": 1.55}, "head.margin is 1.6: give an angle in radians"),
])
def test_impossible_options_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        HeadConfig(**wrong)
