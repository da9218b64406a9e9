"""A run that is stuck is told which of the usual causes it has."""
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model import HeadConfig, build_head
from training.config import TrainConfig
from training.monitor import (
    LINES,
    CollapseMonitor,
    Level,
    RunFacts,
    likely_causes,
    odd_input,
    resting_level,
    stuck_sentence,
)

SOUND = RunFacts(mean=-0.2, std=1.1, weights="timm", frozen=(), optimizer="sgd", lr=0.05, backbone_lr=1.0,
                      clip=5.0, scale=30.0, num_classes=1448)
ONE_WAY = resting_level(64, 5.5, easy_margin=False)


def test_a_sound_run_has_none():
    assert likely_causes(SOUND) == []
    assert stuck_sentence(5.54, ONE_WAY, []) == (
        "nothing is learned: the loss stays at 5.54, near the 5.50 of embeddings which all point one way, and input, "
        "frozen layers, train.lr, train.clip and head.scale show no usual cause; check the labels, or lower train.lr")


@pytest.mark.parametrize("change, cause", [
    ({"mean": -2.1, "std": 4.4}, "the network's input has mean -2.10 and deviation 4.40 instead of about 0 and 1 (are "
                                 "the photos normalized twice, or nearly black?)"),
    ({"mean": 0.1, "std": 0.02}, "the network's input has mean 0.10 and deviation 0.02 instead of about 0 and 1 (are "
                                 "the photos normalized twice, or nearly black?)"),
    ({"frozen": ("backbone",), "weights": "none"},
     "the backbone is frozen (train.frozen) with random weights (model.weights none)"),
    ({"frozen": ("neck", "head")}, "the head is frozen (train.frozen): let its centers learn first"),
    ({"frozen": ("backbone",)}, "the backbone is frozen (train.frozen): let it learn once the head has begun to"),
    ({"weights": "none", "backbone_lr": 0.1},
     "train.backbone_lr 0.1 hardly moves a backbone of random weights (model.weights none): set it to 1"),
    ({"lr": 1e-4}, "train.lr 0.0001 is below 0.001, the least that sgd is known to train with: raise it"),
    ({"lr": 2.0}, "train.lr 2 is above 0.5, the most that sgd is known to train with: lower it"),
    ({"lr": 0.05, "optimizer": "adamw"},
     "train.lr 0.05 is above 0.005, the most that adamw is known to train with: lower it"),
    ({"clip": 0.01}, "train.clip 0.01 leaves little of the gradient: try 5"),
    ({"weights": "none", "scale": 64.0},
     "the head's scale 64 is large for a backbone of random weights (model.weights none): set head.scale to auto, "
     "here 10.3"),
])
def test_each_cause_is_named_alone(change, cause):
    assert likely_causes(replace(SOUND, **change)) == [cause]


def test_causes_that_come_together_are_all_named():
    causes = likely_causes(replace(SOUND, clip=0.01, lr=2.0))
    assert len(causes) == 2
    assert stuck_sentence(5.0, ONE_WAY, causes).endswith(f"one way, likely because {'; '.join(causes)}")


@pytest.mark.parametrize("change", [{"scale": 64.0}, {"weights": "none", "scale": 41.0},
                                    {"weights": "none", "scale": 64.0, "num_classes": 2}])
def test_a_scale_is_no_cause_with_trained_weights_or_near_auto_or_where_there_is_no_auto(change):
    assert likely_causes(replace(SOUND, **change)) == []


def test_the_easy_margin_lets_a_run_rest_at_uniform():
    level = resting_level(64, 12.0, easy_margin=True)
    assert level == Level(math.log(64), "embeddings at right angles to every center")
    assert ONE_WAY == Level(5.5, "embeddings which all point one way")


@pytest.mark.parametrize("easy", [False, True])
def test_one_embedding_for_all_photos_pays_least_at_the_resting_level(easy):
    """All centers lie one way, at every angle to it."""
    head, labels = build_head(HeadConfig(scale=64.0, margin=0.5, easy_margin=easy), 2, 64), torch.arange(64)
    level, losses = resting_level(64, math.log(64) + 64 * (1 - math.cos(0.5)), easy), []
    for degrees in range(0, 181, 5):
        head.weight.data.copy_(torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]))
        losses.append(head(torch.tensor([[1.0, 0.0]]).expand(64, -1), labels).item())
    assert min(losses) == pytest.approx(level.loss, rel=0.01)


@pytest.mark.parametrize("mean, std, odd", [
    (0, 1, False), (-1.4, 0.5, False), (1.4, 2.4, False), (-2.1, 1, True), (2.1, 1, True), (0, 0.3, True),
    (0, 2.6, True), (-2.1, 0.02, True)])
def test_input_is_odd_if_it_is_not_normalized(mean, std, odd):
    assert (odd_input(mean, std) is not None) is odd


def monitor(mean: float, easy: bool = False) -> CollapseMonitor:
    """Of a run with three classes and photos that are as bright as `mean` says."""
    head = HeadConfig(scale=30.0, easy_margin=easy)
    stage = SimpleNamespace(c=TrainConfig(), class_sizes=np.array([1, 2, 3]),
                            config=SimpleNamespace(model=SimpleNamespace(weights="timm"), head=head))
    embedder = SimpleNamespace(mean=torch.full((3,), 0.5 - 0.25 * mean), std=torch.full((3,), 0.25))
    return CollapseMonitor(stage, SimpleNamespace(head=build_head(head, 4, 3), embedder=embedder))


@pytest.fixture
def batch():
    values = torch.tensor([64, 191], dtype=torch.uint8).repeat(48).view(2, 4, 4, 3)  # mean 0.5, deviation 0.25
    return SimpleNamespace(images=values, jitter=None)


def test_odd_input_is_said_at_the_first_line_and_once(batch):
    odd = monitor(-2.1)
    assert odd.warning(9.0, odd.collapsed_loss(), batch) == (
        "the network's input has mean -2.10 and deviation 1.00 instead of about 0 and 1 (are the photos normalized "
        "twice, or nearly black?): the network can learn little from it")
    assert odd.warning(9.0, odd.collapsed_loss(), batch) is None


@pytest.mark.parametrize("easy, words", [(False, "which all point one way"), (True, "at right angles to every center")])
def test_a_run_that_rests_is_told_once_in_so_many_lines(batch, easy, words):
    run = monitor(0, easy)
    level = math.log(3) if easy else run.collapsed_loss()
    said = [run.warning(level, run.collapsed_loss(), batch) for _ in range(2 * LINES)]
    assert [number for number, each in enumerate(said, 1) if each] == [LINES, 2 * LINES]
    assert words in said[-1]
