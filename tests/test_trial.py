"""Whether a network can take a run's batches, computed without weights; every answer is that of the real network."""
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from arcshard.console import UserError
from arcshard.distributed import World
from model import ModelConfig, build_embedder
from training.config import read_arguments
from training.trial import check_network

PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
CPU = torch.device("cpu")


def check(*options, ranks=1):
    words = ["--data", "d", "--out", "o", *map(str, options)]
    check_network([*read_arguments(words).stages.values()], World(0, ranks, CPU))


def network(backbone, size, batch, *more):
    return ["--model.backbone", backbone, "--train.size", size, "--train.global_batch", batch, *more]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_the_network_of_each_preset_takes_the_batches_of_its_stages(preset):
    check("--config", preset)


@pytest.mark.parametrize("backbone, size, batch, neck", [
    ("test_resnet", 32, 2, "bn"), ("test_resnet", 32, 1, "bn"), ("test_resnet", 64, 1, "none"),
    ("test_resnet", 32, 1, "none"), ("test_resnet", 64, 1, "swish"), ("test_efficientnet", 32, 2, "bn-prelu"),
    ("test_vit", 160, 2, "bn"), ("test_vit", 64, 2, "bn"),
    ("test_convnext", 64, 2, "bn"), ("test_mambaout", 64, 2, "bn"),
    ("mobilenetv3_small_050", 64, 2, "none"), ("hgnetv2_b0", 64, 2, "bn")])
def test_it_says_what_training_would(backbone, size, batch, neck):
    try:
        embedder = build_embedder(ModelConfig(backbone=backbone, weights="none", neck=neck, dim=8)).train()
        fits = embedder(torch.zeros(batch, size, size, 3, dtype=torch.uint8)).shape == (batch, embedder.dim)
    except Exception:
        fits = False
    options = network(backbone, size, batch, "--model.neck", neck)
    if fits:
        check(*options)
    else:
        with pytest.raises(UserError, match=": give"):
            check(*options)


def test_a_map_that_is_wider_than_timms_number_of_features_is_taken():
    check(*network("mobilenetv3_small_050", 64, 2))
    assert build_embedder(ModelConfig(backbone="mobilenetv3_small_050", weights="none", neck="none")).dim == 1024


@pytest.mark.parametrize("options, sentence", [
    (network("vit_tiny_patch16_224", 100, 2), r"cannot take images of 100 × 100 pixels \(.*: give 96 or 112"),
    (network("test_resnet", 64, 8, "--train.micro_batch", 1),
     "train.global_batch 8 on 1 ranks with train.micro_batch 1 leaves BatchNorm one image at a time"),
    (network("crossvit_tiny_240", 240, 8), "crossvit_tiny_240 has no features for model.pooling gem: give auto"),
    (network("nothing", 64, 8), "model.backbone is nothing, which timm does not know"),
])
def test_what_does_not_fit_is_named(options, sentence):
    with pytest.raises(UserError, match=sentence):
        check(*options)


def test_one_image_at_a_time_is_enough_for_frozen_statistics_and_too_few_on_many_ranks():
    one = network("test_resnet", 64, 1)
    check(*one, "--train.batchnorm_frozen_from", 0)
    check(*one, "--model.neck", "none")
    check(*one, "--model.neck", "none", "--train.size", 8, "--train.batchnorm", "frozen")
    check(*one, "--model.neck", "none", "--train.size", 8, "--train.frozen", "backbone")
    with pytest.raises(UserError, match="one image at a time"):
        check(*one, "--train.batchnorm", "frozen")  # but the neck's still learns
    with pytest.raises(UserError, match="one image at a time"):
        check(*one, "--train.batchnorm_frozen_from", 1)
    two = network("test_resnet", 64, 2)
    check(*two)
    with pytest.raises(UserError, match="one image at a time"):
        check(*two, ranks=2)
    check(*two, "--train.batchnorm", "synced", ranks=2)


def test_the_first_of_growing_images_and_each_stage_count(tmp_path):
    growing = network("test_resnet", 64, 1, "--model.neck", "none", "--train.first_size", 8)
    with pytest.raises(UserError, match="one image at a time"):
        check(*growing)
    (tmp_path / "p.yaml").write_text("stages: {a: {size: 64}, b: {size: 8}}")
    with pytest.raises(UserError, match="one image at a time"):
        check(*network("test_resnet", 64, 1, "--model.neck", "none"), "--config", tmp_path / "p.yaml")


def test_it_draws_no_random_numbers_needs_no_memory_and_little_time():
    before, begun = torch.get_rng_state(), time.process_time()
    check(*network("resnet50", 448, 10 ** 6, "--model.dim", 10 ** 9))
    assert torch.equal(before, torch.get_rng_state()) and time.process_time() - begun < 2
    assert nn.Linear(1, 1).weight.device == CPU, "the meta device is for the trial alone"
