"""Runs that someone wrote to do harm: opened within the memory that their files explain, or refused in one sentence."""
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import evaluate
import predict
from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.console import UserError
from loader import View
from model import ModelConfig, build_embedder
from retrieval.run.embed import embed_split, load_kept
from retrieval.run.model import load_model
from retrieval.store import write_store
from shards import Dataset
from tests.test_hostile_files import bounded  # noqa: F401

CONFIG = ModelConfig(backbone="test_efficientnet", weights="none", dim=24)


def write_run(folder: Path, change: Callable[[Checkpoint], Any] = lambda run: None) -> Path:
    """A run as train.py leaves it, its weights random, after someone's change."""
    options = {"model": asdict(CONFIG), "view": asdict(View()), "head": {"centers": 1},
               "train": {"size": 48, "device": "cpu"}}
    run = Checkpoint(options, Weights(build_embedder(CONFIG).state_dict(), {"weight": torch.randn(6, 24)}))
    change(run)
    checkpoint.save(folder, run)
    return folder


def option(section: str, name: str, value: Any) -> Callable[[Checkpoint], None]:
    return lambda run: run.config[section].update({name: value})


def repeated(*shape: int) -> Tensor:
    """Four bytes that stand for as many as one likes."""
    return torch.zeros(1).as_strided(shape, (0,) * len(shape))


CHANGES = {
    **{f"dim {dim}": option("model", "dim", dim)
       for dim in (10**9, 10**7, 10**30, 1e9, math.nan, -1, "512", None, [5])},
    **{f"backbone {str(name):.30}": option("model", "backbone", name)
       for name in ("vit_large_patch14_clip_224", "resnet18", "hf-hub:evil/x", "a" * 10**6, "local-dir:/tmp", 5,
                    ["a"])},
    **{f"size {size}": option("train", "size", size) for size in (10**9, 0, -1, 48.5, "48", math.nan, None)},
    **{f"centers {count}": option("head", "centers", count) for count in (0, 10**30, -1, "a", 5)},
    **{f"packing {name}": lambda run, name=name, value=value: run.packing.update({name: value})
       for name, value in (("short_side", -5), ("short_side", "x"), ("quality", 101), ("max_pixels", [1]))},
    "unknown option": option("model", "evil", 1), "view": option("view", "side", 10**30),
    "no view": lambda run: run.config.pop("view"), "cache": lambda run: run.config.update(cache={"evil": 1}),
    "repeated head": lambda run: run.weights.head.update(weight=repeated(10**6, 10**6)),
    "repeated weights": lambda run: run.weights.embedder.update(x=repeated(10**6, 10**6)),
    "head of other width": lambda run: run.weights.head.update(weight=torch.zeros(6, 10)),
    "head of three dimensions": lambda run: run.weights.head.update(weight=torch.zeros(2, 3, 24)),
    "head of complex numbers": lambda run: run.weights.head.update(weight=torch.zeros(6, 24, dtype=torch.complex64)),
    "head of a list": lambda run: run.weights.head.update(weight=[1]), "no head": lambda run: run.weights.head.clear(),
    "weights missing": lambda run: run.weights.embedder.popitem(),
    "weights of a list": lambda run: run.weights.embedder.update(mean=[1, 2]),
    "another input": lambda run: run.weights.embedder.update(mean=torch.zeros(7)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_run_that_does_not_fit_together_is_refused(kind, tmp_path):
    write_run(tmp_path, CHANGES[kind])
    with pytest.raises(UserError) as refusal:
        load_model(tmp_path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 600, refusal.value


@pytest.mark.parametrize("module, words", [
    (evaluate, ["--data"]), (predict, ["--images", ".", "--out", "s", "--index"])])
def test_commands_say_it_in_a_sentence(module, words, dataset_path, tmp_path, monkeypatch):
    monkeypatch.chdir(write_run(tmp_path, CHANGES["dim 1000000000"]))
    (tmp_path / "a.jpg").touch()
    monkeypatch.setattr("sys.argv", ["x", "--run", str(tmp_path), *words, str(dataset_path)])
    with pytest.raises(UserError, match=r"neck.0.weight is \(24, 256\) and in this .* \(1000000000, 256\)"):
        module.main()


@pytest.mark.parametrize("wrong", ["rows", "width", "labels"])
def test_a_store_that_lies_about_its_photos_is_made_again(wrong, dataset_path, tmp_path):
    model, dataset = load_model(write_run(tmp_path)), Dataset(dataset_path, "val")
    honest = embed_split(model, dataset, tmp_path / "store")
    assert load_kept(tmp_path / "store", model, dataset)
    rows = 5 if wrong == "rows" else len(dataset)
    vectors = honest.vectors[:rows, :7 if wrong == "width" else None]
    labels = honest.labels[:rows] + (10**6 if wrong == "labels" else 0)
    write_store(tmp_path / "lie", [vectors], honest.keys[:rows], labels, honest.landmark_ids[:rows], honest.provenance)
    assert load_kept(tmp_path / "lie", model, dataset) is None
