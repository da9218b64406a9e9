"""export.py: files that compute what the run's network does, for ONNX Runtime and timm, which know nothing of us."""
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import export as export_page
from arcshard import checkpoint, console
from arcshard.checkpoint import Checkpoint, Weights
from arcshard.config import as_plain
from arcshard.console import UserError
from arcshard.files import folder_lock
from loader import View
from model import HeadConfig, ModelConfig, UnitEmbedder, build_embedder
from model import export as model_export
from model.export import read_onnx, read_timm, write_onnx, write_timm
from retrieval.run.embed import embed_split
from retrieval.run.model import load_model
from shards import Dataset
from tests import tiny_models  # noqa: F401  names for timm
from training.config import TrainConfig

DOCS = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
SIZE = 48


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, dataset_path):
    """A checkpoint whose average differs from its weights, and whose BatchNorm has seen something."""
    out, model = tmp_path_factory.mktemp("run"), ModelConfig(backbone="test_efficientnet", weights="none", dim=24)
    torch.manual_seed(0)
    embedder = build_embedder(model)
    for _ in range(3):
        embedder(torch.randint(256, (8, SIZE, SIZE, 3), dtype=torch.uint8))
    head = {"weight": torch.zeros(6, 24)}
    config = as_plain(model=model, head=HeadConfig(), view=View(), train=TrainConfig(size=SIZE, device="cpu"))
    checkpoint.save(out, Checkpoint(config, Weights(build_embedder(model).state_dict(), head),
                                    average=Weights(embedder.state_dict(), head),
                                    packing=Dataset(dataset_path).manifest["packing"]))
    return out


@pytest.fixture
def export(monkeypatch, capsys, run_folder):
    """The page in this process: exit code, stdout, stderr."""
    def call(*words):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["export.py", "--run", *map(str, (run_folder, *words))])
        with pytest.raises(SystemExit) as ended:
            console.run(export_page.main)
        return ended.value.code or 0, *capsys.readouterr()
    return call


@pytest.fixture(scope="module")
def measured(run_folder, dataset_path):
    """What evaluate.py makes of the val photos, in its own way: (27, 24)."""
    return embed_split(load_model(run_folder), Dataset(dataset_path, "val"), None)


def snippets(folder, photo):
    """The page's Python, with the names of its files replaced."""
    for snippet in re.findall(r"```python\n(.*?)```", DOCS, re.S):
        here = re.sub(r'"(model[\w.-]*)"', lambda name: f'"{folder / name[1]}"', snippet)
        yield here.replace("photo.jpg", str(photo))


def test_both_files_compute_the_embedding_of_evaluate_as_the_docs_show(export, dataset_path, photos, measured,
                                                                       tmp_path):
    """The docs' code runs on a photo's file; it is decoded and resized by OpenCV there, and by DALI in evaluate.py."""
    for name in ("model.onnx", "model.safetensors"):
        code, said, err = export("--out", tmp_path / name, "--data", dataset_path)
        assert (code, err) == (0, "") and f"{tmp_path / name}\n" in said, said
        assert re.search(r"largest difference \d\.\de[+-]\d\d on 60 images of", said)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.safetensors", "model-neck.safetensors"}
    names: dict = {}
    for snippet in snippets(tmp_path, photos[0] / f"{measured.keys[0]}.jpg"):
        exec(snippet, names)
        embedding = np.asarray(names.pop("embeddings"))
        cosines = measured.vectors @ embedding[0]
        assert embedding.shape == (1, 24) and cosines[0] > 0.9999 and cosines.argmax() == 0

    session = names["session"]
    about, (given,), (answer,) = session.get_modelmeta(), session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["B", SIZE, SIZE, 3])
    assert (answer.name, answer.type, answer.shape) == ("embeddings", "tensor(float)", ["B", 24])
    with safe_open(tmp_path / "model.safetensors", "pt") as f:
        assert f.metadata() == about.custom_metadata_map
    assert about.custom_metadata_map == {
        "backbone": "test_efficientnet", "pooling": "gem", "neck": "bn-prelu", "dim": "24", "size": str(SIZE),
        "framing": "crop", "side": "1", "mean": json.dumps(names["mean"].flatten().tolist()),
        "std": json.dumps(names["std"].flatten().tolist()), "checkpoint_sha256": measured.provenance.model}


def test_timm_loads_the_backbone_alone_and_misses_nothing(run_folder, tmp_path):
    embedder = load_model(run_folder).embedder.eval()
    write_timm(tmp_path / "m.safetensors", embedder, {})
    loaded = timm.create_model("test_efficientnet", num_classes=0, pretrained=True,
                               pretrained_cfg_overlay={"file": str(tmp_path / "m.safetensors")}).eval()
    assert load_file(tmp_path / "m.safetensors").keys() == loaded.state_dict().keys()
    x = torch.rand(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), embedder.backbone(x).mean((2, 3)))


@pytest.mark.parametrize("pooling, neck", [("gem", "bn"), ("gem-fixed", "swish"), ("avg", "bn-prelu"), ("avg", "none")])
def test_every_pooling_and_neck_comes_back(pooling, neck, tmp_path):
    config = ModelConfig(backbone="test_efficientnet", weights="none", pooling=pooling, neck=neck, dim=8)
    embedder = build_embedder(config)
    for parameter in embedder.parameters():
        parameter.data.add_(0.01)
    write_timm(tmp_path / "m.safetensors", embedder, {"a": "b"})
    images = torch.randint(256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(read_timm(tmp_path / "m.safetensors", config, SIZE)(images),
                                   UnitEmbedder(embedder).eval()(images), rtol=0, atol=0)


def test_what_does_not_agree_is_not_written(export, monkeypatch, tmp_path):
    (tmp_path / "m.safetensors").write_text("what was there before")
    for wrong in (lambda images: torch.ones(len(images), 24), lambda images: torch.full((len(images), 24), torch.nan)):
        monkeypatch.setattr(export_page, "read_timm", lambda *_: wrong)
        code, _, err = export("--out", tmp_path / "m.safetensors")
        assert code == 1 and len(err.splitlines()) == 1
        assert "the network differ by over 0.0001; largest difference" in err
        assert "on 25 images of noise: nothing was written" in err
    path, = tmp_path.iterdir()
    assert path.read_text() == "what was there before"


def test_an_export_that_is_killed_leaves_no_old_file_beside_a_new_one(export, monkeypatch, tmp_path):
    """Its files get their names one after the other."""
    assert export("--out", tmp_path / "m.safetensors")[0] == 0
    (tmp_path / "m.safetensors").write_text("old")
    (tmp_path / "m-neck.safetensors").write_text("old")
    whole, seen = export_page.whole_file, []

    def second_fails(path):
        seen.append(path)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(path)
    monkeypatch.setattr(export_page, "whole_file", second_fails)
    assert export("--out", tmp_path / "m.safetensors")[0] == 130
    left, = tmp_path.glob("*.safetensors")
    assert left == seen[0] and left.read_bytes() != b"old"


def test_a_second_export_to_one_name_is_refused(export, monkeypatch, tmp_path):
    """Their files would mix. What an export that was killed left goes with the next one."""
    aside = tmp_path / ".m.safetensors.exporting"
    aside.mkdir()
    (aside / "m.safetensors").write_text("half of it")
    with folder_lock(aside):
        code, _, err = export("--out", tmp_path / "m.safetensors")
    assert code == 2 and f"{aside} is locked: another process writes into it" in err
    assert [*tmp_path.iterdir()] == [aside]
    assert export("--out", tmp_path / "m.safetensors")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"m.safetensors", "m-neck.safetensors"}


def test_a_full_disk_is_a_sentence(export, small_files, tmp_path):
    for name in ("m.onnx", "m.safetensors"):
        with small_files:
            code, _, err = export("--out", tmp_path / name)
        assert code == 2 and f"no room left for {tmp_path / name} (File too large)" in err
        assert len(err.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_mistakes_are_one_sentence(export, monkeypatch, tmp_path):
    def refused(sentence, *words):
        code, _, err = export("--out", *words)
        assert code == 2 and sentence in err and len(err.splitlines()) == 1, err

    refused("--out is m.pt: give a name that ends in .onnx or .safetensors", "m.pt")
    refused("has no none.pt: give --checkpoint one of checkpoint.pt", tmp_path / "m.onnx", "--checkpoint", "none.pt")
    refused("there is no folder", tmp_path / "m.safetensors", "--data", tmp_path / "none")
    monkeypatch.setattr(model_export, "LARGEST", 1000)
    refused("0.0 GB, and an ONNX file holds less than 2.1 GB: give --out", tmp_path / "m.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    refused("ONNX needs the package onnxscript, which is missing: pip install 'arcshard[export]'", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, size", [("tiny_clip", 32), ("tiny_clip", 48), ("tiny_swin", 32), ("tiny_swin", 48),
                                        ("test_convnext", 48)])
def test_transformers_and_convolutions_leave_in_both_forms(name, size, tmp_path):
    """At their own size and at another, for any number of images; the metadata is checked above."""
    torch.manual_seed(0)
    config = ModelConfig(name, "none", "auto", neck="ln", dim=8)
    network = UnitEmbedder(build_embedder(config, size=size)).eval()
    write_onnx(tmp_path / "m.onnx", network, size, {})
    write_timm(tmp_path / "m.safetensors", network.embedder, {})
    for read in (read_onnx(tmp_path / "m.onnx"), read_timm(tmp_path / "m.safetensors", config, size)):
        for count in (3, 1):
            images = torch.randint(256, (count, size, size, 3), dtype=torch.uint8)
            with torch.inference_mode():
                torch.testing.assert_close(read(images), network(images), rtol=0, atol=1e-4)


def test_a_network_that_torch_cannot_convert_is_one_sentence(tmp_path):
    network = UnitEmbedder(build_embedder(ModelConfig("tiny_beit", "none", "auto", dim=8))).eval()
    with pytest.raises(UserError, match="torch cannot write this network as ONNX"):
        write_onnx(tmp_path / "m.onnx", network, 32, {})
    assert not list(tmp_path.iterdir())
