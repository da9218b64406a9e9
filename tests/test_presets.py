"""The presets in configs/, and how one is a difference from another."""
import math
import re
from pathlib import Path

import pytest
import timm
import torch

import train as train_page
from arcshard.console import UserError
from arcshard.distributed import World
from arcshard.presets import read_preset
from training import log
from training.config import ONLY
from training.trial import check_network

ALONE = World(0, 1, torch.device("cpu"))
PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
SMALL = {"size": 32, "epochs": 0.2, "global_batch": 6, "log_every": 1, "checkpoint_every": 1}
SMALLEST = {"convnext": "test_convnext2", "efficientnet": "test_efficientnet", "res2net": "res2net50_48w_2s",
            "resnest": "resnest14d", "resnet": "test_resnet", "rexnet": "rexnet_100", "vision_transformer": "test_vit"}
"""A small model of each module of timm that a preset's backbone is from."""


def module_of(backbone):
    return timm.model_entrypoint(backbone.partition(".")[0]).__module__.rpartition(".")[2]


def read(preset, *words):
    """The options as train.py has them."""
    words = ["--config", preset, "--data", "none", "--out", "none", *words]
    return train_page.read_arguments([str(word) for word in words])


@pytest.mark.heavy
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_every_preset_trains_each_of_its_stages(preset, dataset_path, tmp_path):
    """Two steps a stage, with a small network of the same module of timm in place of the preset's own."""
    run = read(preset)
    words = [word for stage in run.stages for key, value in SMALL.items()
             for word in (f"--train.{key}" if stage == ONLY else f"--stages.{stage}.{key}", value)]
    backbone = next(iter(run.stages.values())).model.backbone
    args = read(preset, "--model.backbone", SMALLEST[module_of(backbone)], "--model.weights", "none", "--data",
                dataset_path, "--out", tmp_path, "--train.device", "cpu", "--loader.num_threads", 1, *words)
    assert train_page.train(args, ALONE) == 0
    lines = log.read(tmp_path)
    assert [line["stage"] for line in lines] == [name for name in run.stages for _ in range(2)]
    assert all(math.isfinite(line["loss"]) for line in lines)


@pytest.mark.heavy
@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_the_network_of_every_preset_takes_its_images_and_has_weights(preset):
    """On torch's meta device, as train.py tries it."""
    stages = list(read(preset).stages.values())
    assert timm.is_model_pretrained(stages[0].model.backbone)
    check_network(stages, ALONE)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_names_the_license_of_the_weights_that_it_names(preset):
    for name, comment in re.findall(r"^  backbone: ([\w.]+)(.*)$", preset.read_text(), re.M):
        assert comment.endswith(f"weights: {timm.get_pretrained_cfg(name).license}")


FIRST_PLACE = {  # number: backbone, exponent of GeM, framing, side before and after the crop, margin, images an update
    1: ("seresnext101_32x4d", "gem", "short", 512, 448, 0.4, 256),
    2: ("seresnext101_32x4d", "gem", "short", 512, 448, 0.3, 192),
    3: ("seresnext101_32x4d", "gem", "squash", 656, 586, 0.4, 384),
    4: ("tf_efficientnet_b3", "gem", "long", 512, 448, 0.35, 256),
    5: ("tf_efficientnet_b3", "gem", "long", 664, 600, 0.35, 64),
    6: ("resnet152s", "gem-fixed", "short", 544, 512, 0.3, 240),
    7: ("res2net101_26w_4s", "gem-fixed", "short", 544, 512, 0.4, 240)}


@pytest.mark.parametrize("number", FIRST_PLACE)
def test_the_presets_of_the_first_place_are_its_seven_configurations(number):
    """What their configs/config1.py to config7.py say, whatever a preset takes over from another."""
    preset, = (path for path in PRESETS if path.name.startswith(f"first-place-{number}-"))
    first = PRESETS[[path.stem for path in PRESETS].index("first-place-1-seresnext101")]
    given, common = (read(path).stages["main"] for path in (preset, first))
    backbone, pooling, framing, whole, side, margin, batch = FIRST_PLACE[number]
    assert (given.model.backbone.partition(".")[0], given.model.pooling) == (backbone, pooling)
    assert (given.view.framing, given.view.side, given.train.size) == (framing, pytest.approx(side / whole, abs=5e-4),
                                                                       side)
    assert (given.head.margin, given.train.global_batch) == (margin, batch)
    for field in ("epochs", "lr", "warmup", "weight_decay", "decay_on", "clip", "schedule"):
        assert getattr(given.train, field) == getattr(common.train, field)
    assert (given.model.neck, given.head.scale, given.head.class_weights) == ("bn-prelu", 45, "log")
    assert (given.train.nesterov, given.train.decay_on, given.train.weight_decay) == (True, "all", 1e-4)


@pytest.mark.parametrize("model, drop_path, init", [
    ("b5", 0.2, "uniform"), ("b6", 0.2, "xavier"), ("b7", 0.2, "xavier"), ("resnet152", 0.0, "uniform")])
def test_the_presets_of_the_second_place_train_as_its_code_does(model, drop_path, init):
    """optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-5), and no clipping, in each stage."""
    for stage in read(PRESETS[0].parent / f"second-place-{model}.yaml").stages.values():
        c = stage.train
        assert (c.optimizer, c.lr, c.momentum, c.nesterov, c.weight_decay, c.decay_on, c.clip, c.schedule) == (
            "sgd", 0.01, 0.9, False, 1e-5, "all", math.inf, "constant")
        assert (c.drop_path, stage.head.init) == (drop_path, init)


THIRD_PLACE = {  # --init-lr (1e-4 unless given) of each command in the README of a7947ff
    "b3": (1e-4, 1e-4, 5e-5, 5e-5), "b4": (1e-4, 1e-4, 5e-5, 1e-4), "b5": (1e-4, 1e-4, 5e-5), "b6": (1e-4, 1e-4, 1e-5),
    "b7": (1e-4, 1e-4, 5e-5, 1e-4), "resnest101": (3e-5, 3e-5, 2e-5, 4e-5), "rexnet2": (1e-4, 1e-4)}


@pytest.mark.parametrize("model", THIRD_PLACE)
def test_the_rates_of_the_third_place_are_what_its_scheduler_reaches(model):
    """GradualWarmupSchedulerV2 with multiplier 10: the first epoch at init-lr, the second at ten times that."""
    stages = [stage.train for stage in read(PRESETS[0].parent / f"third-place-{model}.yaml").stages.values()]
    assert [c.lr for c in stages] == pytest.approx(
        [rate * (10 if c.epochs > 1 else 1) for rate, c in zip(THIRD_PLACE[model], stages)])
    assert [c.warmup * c.epochs for c in stages] == pytest.approx([float(c.epochs > 1) for c in stages], abs=0.02)


def test_a_preset_is_laid_over_the_one_that_it_names(tmp_path):
    """As two --config do: fields one by one, stages as a whole."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.yaml").write_text("head: {scale: 33, margin: 0.4}\nstages: {z: {lr: 1}, a: {lr: 2}}\n")
    (tmp_path / "b.yaml").write_text("config: below/a.yaml\nhead: {margin: 0.3}\n")
    (tmp_path / "c.yaml").write_text("config: b.yaml\nview: {flip: 0}\nstages: {y: {lr: 3}}\n")
    assert read_preset(tmp_path / "c.yaml") == {
        "head": {"scale": 33, "margin": 0.3}, "view": {"flip": 0}, "stages": {"y": {"lr": 3}}}
    args = read(tmp_path / "b.yaml")
    assert [(name, stage.head.scale, stage.head.margin) for name, stage in args.stages.items()] == [
        ("z", 33, 0.3), ("a", 33, 0.3)]
    assert read(tmp_path / "below" / "a.yaml", "--config", tmp_path / "c.yaml") == read(tmp_path / "c.yaml")


@pytest.mark.parametrize("text, sentence", [
    ("{", "p.yaml is not a preset, a YAML file of options"),
    ("[1]", "p.yaml is not a preset: give a mapping of sections"),
    ("config: [1]", "p.yaml is not a preset: .* a file name under the key config"),
    ("config: none.yaml", "none.yaml is not a preset, a YAML file of options"),
    ("config: ../p/p.yaml", "form a circle through p.yaml: remove one of their config keys"),
])
def test_what_is_no_preset_is_one_sentence(text, sentence, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_preset(tmp_path / "p" / "p.yaml")
