"""Pixels reach a network by the mean and deviation of its weights, wherever these come from."""
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.console import UserError
from loader import View
from model import ModelConfig, build_embedder
from model.export import read_timm, write_timm
from retrieval.run.model import load_model

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # SigLIP's
OTHER = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
COLOR = np.array([10, 120, 250], np.uint8)
SMALL = ModelConfig(backbone="test_efficientnet", weights="none", neck="none")


def assert_normalized(embedder, mean, std):
    """What the backbone is given, against float64."""
    given = []
    embedder.pooled, embedder.neck = lambda x: (given.append(x), x)[1], torch.nn.Identity()
    embedder.eval()(torch.from_numpy(np.broadcast_to(COLOR, (2, 32, 32, 3)).copy()))
    expected = (COLOR / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(given[0].numpy(), np.broadcast_to(expected[:, None, None], (2, 3, 32, 32)), atol=1e-5)


@pytest.mark.parametrize("name, statistics", [
    ("vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", CLIP), ("test_vit", HALF), ("test_efficientnet", IMAGENET)])
def test_they_are_those_of_timms_weights(name, statistics):
    assert_normalized(build_embedder(replace(SMALL, backbone=name, pooling="avg")), *statistics)


def test_siglip_has_those_of_the_last_test():
    for name in timm.list_pretrained("vit_*siglip*"):
        assert (timm.get_pretrained_cfg(name).mean, timm.get_pretrained_cfg(name).std) == HALF


def test_a_file_that_does_not_state_them_has_those_of_its_name(tmp_path):
    torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "w.pth")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "another", "pretrained_cfg": {"mean": [9]}}))
    config = replace(SMALL, backbone="test_vit", pooling="cls", weights=str(tmp_path / "w.pth"))
    assert_normalized(build_embedder(config), *HALF)


@pytest.mark.parametrize("where", ["metadata", "config.json"])
def test_a_file_may_state_them(where, tmp_path):
    weights = timm.create_model("test_efficientnet", num_classes=0).state_dict()
    stated = dict(zip(("mean", "std"), map(list, OTHER)))
    save_file(weights, tmp_path / "model.safetensors",
              {key: json.dumps(value) for key, value in stated.items()} if where == "metadata" else {"format": "pt"})
    if where == "config.json":
        (tmp_path / where).write_text(json.dumps({"architecture": "test_efficientnet", "pretrained_cfg": stated}))
    config = replace(SMALL, weights=str(tmp_path / "model.safetensors"))
    assert_normalized(build_embedder(config), *OTHER)


@pytest.mark.parametrize("std", [[0, 0.5, 0.5], [0.5, 0.5], 0.5, "abc", [1e999, 1, 1]])
def test_statistics_that_are_none_are_refused(std, tmp_path):
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), tmp_path / "m.safetensors",
              {"mean": "[0, 0, 0]", "std": json.dumps(std)})
    with pytest.raises(UserError, match="m.safetensors is not a checkpoint of timm's test_efficientnet"):
        build_embedder(replace(SMALL, weights=str(tmp_path / "m.safetensors")))


def test_a_run_and_what_it_exports_keep_those_that_it_was_trained_with(tmp_path):
    """Also where timm gives the backbone's name other weights one day."""
    embedder = build_embedder(replace(SMALL, neck="linear", dim=24))
    embedder.mean[:], embedder.std[:] = map(torch.tensor, OTHER)
    config = replace(SMALL, neck="linear", dim=24)
    options = {"model": asdict(config), "view": asdict(View()), "head": {"centers": 1},
               "train": {"size": 48, "device": "cpu"}}
    checkpoint.save(tmp_path, Checkpoint(options, Weights(embedder.state_dict(), {"weight": torch.zeros(6, 24)})))
    model = load_model(tmp_path)
    about = {name: json.dumps(getattr(model.embedder, name).tolist()) for name in ("mean", "std")}
    write_timm(tmp_path / "m.safetensors", model.embedder, about)
    images = torch.randint(256, (2, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        read = read_timm(tmp_path / "m.safetensors", config, 48)(images)
        assert torch.allclose(read, torch.nn.functional.normalize(model.embedder(images)), atol=1e-6)
    assert_normalized(model.embedder, *OTHER)
