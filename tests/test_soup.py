"""A mean of runs' weights is a run like any other."""
import sys
from dataclasses import asdict, replace

import pytest
import torch

import evaluate
import training.__main__
from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.console import UserError
from loader import View
from model import HeadConfig, ModelConfig, build_embedder
from model.batchnorm import batchnorms
from shards import Dataset
from training.soup import soup

CONFIG = ModelConfig(backbone="test_resnet", weights="none", dim=16)


@pytest.fixture
def runs(tmp_path, dataset_path):
    """Two runs that went a little apart from one start, as train.py leaves them."""
    torch.manual_seed(0)
    start, head = build_embedder(CONFIG), torch.randn(6, 16)
    options = {"model": asdict(CONFIG), "view": asdict(View()), "head": asdict(HeadConfig()),
               "train": {"size": 32, "device": "cpu", "batchnorm": "train"}}
    folders = []
    for i in range(2):
        weights = Weights({name: value + 0.01 * torch.randn(value.shape) if value.is_floating_point() else value + i
                           for name, value in start.state_dict().items()}, {"weight": head + 0.1 * torch.randn(6, 16)})
        options["train"]["seed"] = i
        folders.append(tmp_path / f"run{i}")
        folders[-1].mkdir()
        checkpoint.save(folders[-1], Checkpoint(options, weights, data=Dataset(dataset_path).fingerprint,
                                                landmark_ids=list("abcdef")))
    return folders


@pytest.fixture
def average(monkeypatch, capsys, dataset_path, tmp_path):
    def call(*words, data=dataset_path):
        monkeypatch.setattr(sys, "argv", ["training", "average", *map(str, words), "--data", str(data), "--out",
                                          str(tmp_path / "soup"), "--images", "128"])
        training.__main__.main()
        return capsys.readouterr().out
    return call


def test_a_soup_is_the_mean_of_weights_with_statistics_of_its_own_and_can_be_evaluated(
        runs, average, tmp_path, dataset_path, monkeypatch, capsys):
    assert "warning" not in average(*runs)
    one, other, mean = (checkpoint.load(folder) for folder in (*runs, tmp_path / "soup"))
    embedder = build_embedder(CONFIG)
    moved = {f"{name}.{statistic}" for name, layer in embedder.named_modules() if layer in batchnorms(embedder)
             for statistic in ("running_mean", "running_var")}
    for name, value in mean.weights.embedder.items():
        a, b = one.weights.embedder[name], other.weights.embedder[name]
        if name in moved:
            assert not torch.allclose(value, (a + b) / 2)
        elif value.is_floating_point():
            torch.testing.assert_close(value, ((a.double() + b) / 2).float())
    a, b = (run.weights.head["weight"] for run in (one, other))
    torch.testing.assert_close(mean.weights.head["weight"], (a + b) / 2)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--run", str(tmp_path / "soup"), "--data", str(dataset_path)])
    evaluate.main()
    assert "recall@1" in capsys.readouterr().out
    with pytest.raises(UserError, match="soup has a checkpoint.pt: give another --out"):
        average(*runs)


def test_a_mean_of_equal_weights_is_them():
    weights = Weights({"a": torch.randn(3), "n": torch.tensor(5)}, {"weight": torch.randn(2, 3)})
    mean = soup([weights] * 3)
    assert torch.equal(mean.embedder["a"], weights.embedder["a"]) and mean.embedder["n"] == 5
    assert torch.equal(mean.head["weight"], weights.head["weight"])


def changed(run, **fields):
    checkpoint.save(run, replace(checkpoint.load(run), **fields))


def test_runs_that_do_not_fit_are_refused(runs, average, tmp_path):
    with pytest.raises(UserError, match="takes at least two runs"):
        average(runs[0])
    first = checkpoint.load(runs[0])
    changed(runs[0], config={**first.config, "view": asdict(View(flip=0.25))})
    with pytest.raises(UserError, match="are of different recipes: view.flip was 0.25 and is 0.5"):
        average(*runs)
    changed(runs[0], config=first.config, landmark_ids=list("abcdeg"))
    with pytest.raises(UserError, match="have different classes"):
        average(*runs)
    changed(runs[0], landmark_ids=list("abcdef"), data="other")
    with pytest.raises(UserError, match="is not the dataset that .*run0 was trained on"):
        average(*runs)
    changed(runs[0], data=None, weights=replace(first.weights, head={"weight": -first.weights.head["weight"]}))
    assert "warning: these runs did not go on from one checkpoint" in average(*runs)
