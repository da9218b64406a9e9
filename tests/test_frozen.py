"""What train.frozen names does not change and costs no gradient, on any number of ranks; a later stage may train it."""
import copy
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from arcshard.distributed import World
from loader import Batch
from model import HeadConfig, ModelConfig
from tests.test_train import TINY, losses
from training.config import TrainConfig
from training.optim import AveragedWeights, build_optimizer
from training.state import TrainState, build_step, update
from training.step import CompiledStep, KeptBuffers, train_mode

ALONE = World(0, 1, torch.device("cpu"))
PARTS = ("backbone", "neck", "head")
SOME = [*combinations(PARTS, 1), *combinations(PARTS, 2)]
NETWORK = ModelConfig("test_efficientnet", "none", dim=16)


def part_of(name):
    return next((part for part in ("backbone", "head") if part in name.split(".")), "neck")


def make_state(c):
    torch.manual_seed(0)
    step = build_step(NETWORK, HeadConfig(learn_scale=True), np.full(6, 5), c, ALONE, 32)
    train_mode(step, c, 0)
    return TrainState(c, ALONE, step, build_optimizer(step, step.embedder.backbone, c), AveragedWeights(step, 100.0),
                      KeptBuffers(step), None, 0)


def make_batch(number=0):
    g = torch.Generator().manual_seed(number)
    return Batch(torch.randint(256, (6, 32, 32, 3), dtype=torch.uint8, generator=g), torch.arange(6), range(6),
                 torch.ones(6, 3), replaced=0, wait=0.0)


@pytest.mark.parametrize("frozen, compiled", [*((frozen, False) for frozen in SOME), (("head",), True),
                                              (("backbone", "neck"), True)])
def test_only_what_is_not_frozen_changes(frozen, compiled):
    """Weights, running statistics, the learned scale and their averages, with weight decay on everything."""
    c = TrainConfig(frozen=frozen, lr=0.1, weight_decay=0.1, decay_on="all", drop_path=0.3, micro_batch=3,
                    global_batch=6)
    state = make_state(c)
    form = CompiledStep(state.step, c, "aot_eager") if compiled else state.step
    before = copy.deepcopy(state.step.state_dict())
    for number in range(2):
        update(state, form, make_batch(number), 6 * (number + 1))
    for now in (state.step.state_dict(), state.average.module.state_dict()):
        changed = {part_of(name) for name, value in now.items() if not torch.equal(value, before[name])}
        assert changed == {*PARTS} - {*frozen}


def test_a_frozen_backbone_keeps_nothing_for_a_backward_pass():
    kept = []
    state = make_state(TrainConfig(frozen="backbone"))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        features = state.step.embedder.backbone(torch.rand(6, 3, 32, 32))
    assert not features.requires_grad and not kept


@pytest.mark.parametrize("frozen", [("neck",), ("neck", "head")])
def test_the_dropout_of_a_frozen_neck_still_regularizes_the_backbone(frozen):
    state = make_state(TrainConfig(frozen=frozen))
    state.step.embedder.neck.append(nn.Dropout())
    train_mode(state.step, state.c, 0)
    assert [layer.training for layer in state.step.embedder.neck] == [True, False, True, True]  # linear, norm, …


def test_a_neck_that_has_nothing_to_learn_is_not_left_alone(call, dataset_path, tmp_path, refused):
    """Said before the first stage; a learned exponent of GeM is enough."""
    (tmp_path / "stages.yaml").write_text("stages: {all: {epochs: 1}, none: {epochs: 1, frozen: [head, backbone]}}")
    words = ["train.py", *TINY, "--data", dataset_path, "--config", tmp_path / "stages.yaml", "--model.neck", "none"]
    refused(call(*words, "--out", tmp_path / "run", "--model.pooling", "avg"),
            "stage none: train.frozen head and backbone leaves nothing to train, as model.neck is none")
    assert not (tmp_path / "run").exists()
    assert call(*words, "--out", tmp_path / "run").returncode == 0


STAGES = """
train: {batchnorm_frozen_from: 0, ema: 60, epochs: 1, optimizer: adamw, lr: 0.01}
stages:
  probe: {frozen: [backbone, neck]}
  tune: {frozen: head, backbone_lr: 0.1, layer_decay: 0.8}
  all: {frozen: [], backbone_lr: 0.1}
"""


@pytest.mark.heavy
def test_a_sharded_head_that_learns_alone_and_then_stands_still_trains_as_a_whole_one(call, on_ranks, dataset_path,
                                                                                     tmp_path):
    """In the first stage nothing is left that the ranks average; in the second the sharded part has no gradient."""
    (tmp_path / "stages.yaml").write_text(STAGES)
    words = ["train.py", *TINY, "--data", dataset_path, "--config", tmp_path / "stages.yaml"]
    done = call(*words, "--out", tmp_path / "whole")
    assert done.returncode == 0 and "tune: the backbone learns at 0.0328 (first layer) to 0.1 times" in done.stdout
    sharded = on_ranks(2, *words, "--out", tmp_path / "sharded", "--head.sharded", "true", "--train.micro_batch", 3)
    assert sharded.returncode == 0, sharded.stderr
    expected = [loss for _, _, loss in losses(tmp_path / "whole")]
    assert len(expected) == 15
    assert [loss for _, _, loss in losses(tmp_path / "sharded")] == pytest.approx(expected, rel=1e-3)


def test_ranks_do_not_wait_for_layers_behind_the_map_which_learn_nothing(call, on_ranks, dataset_path, tmp_path):
    words = ["train.py", *TINY, "--data", dataset_path, "--model.backbone", "efficientvit_b0", "--model.pooling", "avg",
             "--train.size", 32, "--train.epochs", 1, "--train.batchnorm_frozen_from", 0]
    one, two = call(*words, "--out", tmp_path / "one"), on_ranks(2, *words, "--out", tmp_path / "two")
    assert one.returncode == two.returncode == 0, one.stderr + two.stderr
    expected = [loss for _, _, loss in losses(tmp_path / "one")]
    assert [loss for _, _, loss in losses(tmp_path / "two")] == pytest.approx(expected, rel=1e-3)
