"""A leading ~ is the home folder wherever a path is given: on a command line, in YAML, in Python."""
import re
from pathlib import Path

import pytest
import timm
import torch

from arcshard.console import Parser, UserError, expand_home
from arcshard.presets import read_preset
from arcshard.urls import filesystem
from loader import Loader, Selection
from model.weights import make_backbone
from preprocess.packing.output import open_output
from retrieval.pipeline import read_pipeline
from shards import Dataset, splits
from tests.commands import ROOT
from training.config import read_arguments


@pytest.fixture
def home(tmp_path, monkeypatch, dataset_path):
    """Holds a dataset `ds`; the working directory is another folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "ds").symlink_to(dataset_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize("path, expanded", [
    ("~/x", "{home}/x"), (Path("~/x"), "{home}/x"), ("~", "{home}"), ("~root/x", "/root/x"), ("./~/x", "./~/x"),
    ("a~/~", "a~/~"), ("s3://~/x", "s3://~/x"), ("", "")])
def test_a_leading_tilde_is_expanded_as_a_shell_does(path, expanded, home):
    assert expand_home(path) == expanded.format(home=home)


def test_an_unknown_user_is_one_sentence():
    with pytest.raises(UserError, match="~nobody-here/x begins with ~nobody-here, a user whom"):
        expand_home("~nobody-here/x")


def test_every_value_on_a_command_line_is_expanded(home):
    parser = Parser()
    parser.add_argument("--path", type=Path)
    parser.add_argument("--text")
    command = parser.add_subparsers().add_parser("command")
    command.add_argument("several", type=Path, nargs="+")
    args = parser.parse_args(["--path=~/a", "--text", "~/b", "command", "~/c", "d"])
    assert [args.path, args.text, *args.several] == [home / "a", f"{home}/b", home / "c", Path("d")]


def test_every_command_has_this_parser():
    commands = [path for path in [*ROOT.glob("*.py"), *ROOT.glob("preprocess/*.py"), *ROOT.glob("*/__main__.py")]
                if "parse_args" in path.read_text()]
    assert len(commands) > 12
    for path in commands:
        assert not re.search(r"ArgumentParser\(", path.read_text()), path


def test_train_expands_what_flags_and_presets_name(home, dataset_path):
    """The text stays as it was given: a run that continues compares it."""
    (home / "base.yaml").write_text("train: {lr: 0.3}\n")
    (home / "p.yaml").write_text("config: ~/base.yaml\nselect: {subset: ~/keys, mix: {~/ds: 0.5}}\n"
                                 "stages: {a: {data: ~/ds}}\n")
    run = read_arguments(["--config=~/p.yaml", "--data=~/other", "--out=~/run"])
    stage = run.stages["a"]
    assert run.out == home / "run" and stage.train.lr == 0.3
    assert (stage.data, stage.select.subset, [*stage.select.mix]) == ("~/ds", "~/keys", ["~/ds"])
    (home / "keys").write_bytes(b"\n".join(Dataset(dataset_path).index["key"][:12]))
    loader = Loader(Dataset(stage.data), batch_size=2, size=8, selection=stage.select)
    assert loader.stream.epoch_size == 18


def test_every_door_of_the_library_expands(home):
    assert Dataset("~/ds").path == Dataset(Path("~/ds")).path == home / "ds" and "val" in splits("~/ds")
    assert filesystem("~/ds")[1] == open_output("~/ds").url == f"{home}/ds"
    (home / "p.yaml").write_text("train: {lr: 0.3}\n")
    assert read_preset("~/p.yaml") == read_preset(Path("~/p.yaml")) == {"train": {"lr": 0.3}}
    (home / "pipeline.yaml").write_text("[search: {}, vote: {}, rerank: {model: ~/booster}]")
    with pytest.raises(UserError, match=f"{home}/booster"):
        read_pipeline(home / "pipeline.yaml")
    torch.save(timm.create_model("test_resnet").state_dict(), home / "w.pth")
    make_backbone("test_resnet", "~/w.pth")
    with pytest.raises(UserError, match="none.pth, which is no file"):
        make_backbone("test_resnet", "~/none.pth")
    with pytest.raises(UserError, match="the list of keys ~/none cannot be read"):
        Loader(Dataset("~/ds"), batch_size=2, size=8, selection=Selection(subset="~/none"))
