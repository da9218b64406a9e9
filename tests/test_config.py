"""Every preset is read as a user's flag would be; the command line explains each field."""
import math
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
import timm

from arcshard.config import as_plain, described, differences
from loader import View
from model import HeadConfig, ModelConfig
from training.config import SECTIONS, TrainConfig, may_change, read_arguments, with_new_options

VIEWS = sorted((Path(__file__).parent.parent / "configs" / "views").glob("*.yaml"))
PRESETS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def arguments(*words):
    return read_arguments(["--data", "d", "--out", "o", *map(str, words)])


def first_stage(*words):
    return next(iter(arguments(*words).stages.values()))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_valid_and_flags_win_over_them(preset):
    first = first_stage("--config", preset, "--train.rank_timeout", "12.5")
    assert isinstance(first.train, TrainConfig) and first.train.rank_timeout == 12.5
    assert first.model != ModelConfig() or first.head != HeadConfig(), "a preset that changes nothing is none"


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_the_backbone_of_a_preset_is_one_that_timm_has_weights_for(preset):
    backbone = first_stage("--config", preset).model.backbone
    assert timm.is_model(backbone) and ("." not in backbone or backbone in timm.list_models(pretrained=True))


@pytest.mark.parametrize("views", VIEWS, ids=lambda path: path.stem)
def test_presets_of_views_come_on_top_of_another(views):
    first = first_stage("--config", PRESETS[0], "--config", views)
    assert first.model == first_stage("--config", PRESETS[0]).model and first.view != View()


def test_without_a_preset_the_dataclasses_hold_the_defaults():
    first = first_stage()
    assert {name: getattr(first, name) for name in SECTIONS} == {name: section() for name, section in SECTIONS.items()}


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit) as ended:
        arguments("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "Momentum of SGD, beta1 of AdamW." in text
    for name, section in SECTIONS.items():
        for field in fields(section):
            after = text[text.index(f"--{name}.{field.name} ", text.index("options:")):]
            assert after.index("(type:") > len(f"--{name}.{field.name} ") + 25, f"{name}.{field.name} has no help"


def test_differences_name_the_field_and_both_values():
    old = as_plain(head=HeadConfig(scale=30), train=TrainConfig(lr=0.1, log_every=3))
    new = as_plain(head=HeadConfig(scale=45), train=TrainConfig(lr=0.1, log_every=9))
    assert differences(old, new, {"train.log_every"}) == ["head.scale was 30 and is 45"]
    assert differences(old, old, set()) == []


def test_a_run_of_an_older_version_has_the_defaults_of_options_that_came_later():
    old = as_plain(head=HeadConfig(scale=30), train=TrainConfig(lr=0.1))
    del old["train"]["nesterov"], old["head"]["init"]
    new = with_new_options(old)
    assert new == as_plain(head=HeadConfig(scale=30), train=TrainConfig(lr=0.1))
    assert differences(new, as_plain(head=HeadConfig(scale=30), train=TrainConfig(lr=0.1, nesterov=False)), set()) == [
        "train.nesterov was True and is False"]


def test_a_field_that_a_new_version_adds_counts_as_a_difference():
    assert differences({"head": {"scale": 30}}, {"head": {"scale": 30, "k": 3}}, set()) == [
        "head.k was None and is 3"]


@pytest.mark.parametrize("word", ["--train.batchnorm", "--stages.high.batchnorm"])
def test_a_value_that_has_a_new_name_is_refused_with_it(word, tmp_path, capsys):
    (tmp_path / "stages.yaml").write_text("stages: {high: {epochs: 1}}")
    with pytest.raises(SystemExit) as ended:
        arguments("--config", tmp_path / "stages.yaml", word, "held")
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "held is now frozen" in said and len(said.splitlines()) == 1


def test_every_type_of_an_option_is_described():
    kinds = {kind for section in SECTIONS.values() for kind in get_type_hints(section).values()}
    assert len({described(kind) for kind in kinds}) > 10


NUMBERS = [(section, field.name, kind) for section in SECTIONS.values()
           for field in fields(section) if float in {kind := get_type_hints(section)[field.name], *get_args(kind)}]


@pytest.mark.parametrize("section, name, kind", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, -1000.0])
def test_no_number_may_be_nan_or_far_below_zero(section, name, kind, value):
    given = {tuple: (value, 1.0), dict: {"a": value}}.get(get_origin(kind), value)
    with pytest.raises(ValueError, match=rf"\.{name}\b.* is .*: give"):
        section(**{name: given})


def test_what_may_differ_when_a_run_continues():
    always = may_change(allow_changed_data=False)
    assert {"train.device", "train.global_batch", "loader.num_threads", "cache.window", "head.sharded", "select.mix",
            "stage.data"} < always and not {"train.lr", "train.size", "head.margin", "select.balance"} & always
    assert may_change(allow_changed_data=True) - always == {"select.per_class", "select.balance"}
