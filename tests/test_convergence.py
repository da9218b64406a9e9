"""The convergence study's parts: its faults are those it names, its arms differ in what they say, its sums hold."""
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from arcshard.console import UserError
from model import ModelConfig, build_embedder
from model.embedder import Embedder


@pytest.fixture
def arms(module):
    return module("convergence_arms")


@pytest.fixture
def small(arms):
    """A task of the tests' dataset that runs in seconds."""
    tiny = {"model.backbone": "test_resnet", "model.weights": "none", "model.dim": 16, "train.size": 32,
            "train.epochs": 1, "train.global_batch": 20, "head.scale": 8.0}
    return arms.Task(False, 1, arms.View(), tiny, {"baseline": arms.Arm({}), "bgr": arms.Arm({"fault.bgr": True})},
                     ("baseline",))


def embedder():
    return Embedder(nn.Identity(), nn.Identity(), nn.Identity(), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


def test_every_arm_is_a_setting_of_its_own_and_has_a_reference(arms):
    for task in arms.TASKS.values():
        made = [arms.setting(task.baseline, arm.changes) for arm in task.arms.values()]
        assert len(set(map(repr, made))) == len(made)
        assert all(arm.against in task.arms for arm in task.arms.values())


def test_all_but_one_fault_differs_from_all_in_that_fault_alone(arms):
    everything = arms.DEMO_ARMS["exp7"].changes
    for name, fault in arms.FAULTS.items():
        assert {**arms.DEMO_ARMS[f"exp7 but {name}"].changes, **fault} == everything
        assert arms.DEMO_ARMS[f"only {name}"].changes.items() <= everything.items()


def test_double_normalization_is_the_two_in_a_row(module, arms):
    faults, twice = module("convergence_run"), embedder()
    images = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    once = ((images.double() / 255 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.3, 0.4])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(each, dtype=torch.float64)[:, None, None] for each in (faults.PIXEL_MEAN,
                                                                                     faults.PIXEL_STD))
    faults.apply_faults(arms.Faults(double_normalization=True), twice)
    found = twice(images, torch.ones(2, 3))
    torch.testing.assert_close(found.double(), (once - mean) / std, rtol=0, atol=1e-5)
    assert found[:, 0].std() < 0.02 * once[:, 0].std(), "the contrast is gone"


def test_bgr_shows_the_channels_in_reverse(module, arms):
    reversed_, images = embedder(), torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    module("convergence_run").apply_faults(arms.Faults(bgr=True), reversed_)
    assert torch.equal(reversed_(images, torch.ones(2, 3)), embedder()(images.flip(-1), torch.ones(2, 3)))


def test_a_frozen_stem_leaves_the_rest_learning(module, arms):
    faults, network = module("convergence_run"), build_embedder(ModelConfig("tf_efficientnet_lite0", "none"))
    faults.apply_faults(arms.Faults(frozen_stem=True), network)
    frozen = {name.split(".")[1] for name, p in network.named_parameters() if not p.requires_grad}
    stages = {name.split(".")[2] for name, p in network.named_parameters()
              if name.startswith("backbone.blocks") and not p.requires_grad}
    assert frozen == {"conv_stem", "bn1", "blocks"} and stages == {"0", "1"}
    assert not list(faults.frozen_part(arms.Faults(), network).parameters())


def test_softmax_first_has_no_margin_for_half_of_the_run(module, arms):
    margin_of = module("convergence_run").margin_of
    first = arms.setting({"head.margin": 0.5, "fault.softmax_first": True})
    assert [margin_of(first, progress, progress) for progress in (0, 0.49, 0.5, 1)] == [0, 0, 0.5, 0.5]
    assert margin_of(arms.setting({"head.margin": 0.5, "head.margin_warmup": 0.5}), 0.25, 0.25) == 0.25


@pytest.mark.parametrize("classes_are_photos, classes", [(False, 6), (True, 60)])
def test_a_run_learns_from_views_that_its_seed_decides(module, small, arms, dataset_path, classes_are_photos, classes):
    task = replace(small, classes_are_photos=classes_are_photos)
    photos = module("convergence_run").load(dataset_path, task, seed=0)
    assert len(photos.class_sizes) == classes and len(photos.train) == photos.epoch / 20 == 3
    assert sorted(label for batch in photos.val for label in batch.labels.tolist()) == sorted(
        list(range(60)) if classes_are_photos else [c for c in range(6) for _ in range(3)])
    run = module("convergence_run").train
    found = run(arms.setting(task.baseline), photos, seed=0)
    assert found == run(arms.setting(task.baseline), photos, seed=0)
    assert found["lines"][-1]["epoch"] == 1 and 0 <= found["nearest_photo"] <= 1
    assert found["untrained"] > found["collapsed"] > found["uniform"]


def test_the_study_continues_and_tells_of_what_is_there(module, small, dataset_path, tmp_path, monkeypatch):
    study, report = module("convergence"), module("convergence_report")
    study.run_arms(dataset_path, tmp_path, small, seed=3)
    monkeypatch.setattr(study, "train", lambda *_: pytest.fail("a finished run was repeated"))
    study.run_arms(dataset_path, tmp_path, small, seed=3)
    runs = study.read(tmp_path, small)
    assert {name: list(seeds) for name, seeds in runs.items()} == {"baseline": [3], "bgr": [3]}
    study.file_of(tmp_path, "bgr", 3).unlink()
    text = report.table(small, study.read(tmp_path, small))
    assert "| baseline |" in text and "| bgr |" not in text
    report.draw(small, runs, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(study.file_of(tmp_path, "baseline", 3).read_text()) == runs["baseline"][3]


def test_files_of_runs_have_names_of_their_own(module, arms, tmp_path):
    file_of = module("convergence").file_of
    for task in arms.TASKS.values():
        assert len({file_of(tmp_path, name, 0) for name in task.arms}) == len(task.arms)
    assert file_of(tmp_path, "hard, head's rate × 10", 2).name == "hard-head-s-rate-10-seed-2.json"


def test_differences_are_of_the_seeds_that_both_have(module):
    report = module("convergence_report")
    before, after = {0: {"r": 0.5}, 1: {"r": 0.25}}, {1: {"r": 0.5}, 0: {"r": 1.0}, 2: {"r": 0.0}}
    assert report.paired(before, after, "r") == [0.5, 0.25]
    assert report.mean_and_deviation([0.5, 0.25]) == "+0.375 ± 0.177"
    assert report.mean_and_deviation([-0.5]) == "-0.500"


def test_the_loss_at_the_end_is_that_of_the_last_tenth(module):
    lines = [{"epoch": epoch, "loss": loss} for epoch, loss in ((1, 9.0), (9, 8.0), (9.5, 2.0), (10, 1.0))]
    assert module("convergence_report").last_loss({"lines": lines}) == 1.5


@pytest.mark.parametrize("fault, collapsed, why", [
    ({}, 5.0, "none"), ({}, 9.0, "loss"), ({"fault.double_normalization": True}, 5.0, "input")])
def test_a_run_is_warned_of_for_its_input_or_for_where_its_loss_rests(module, small, dataset_path, fault, collapsed,
                                                                      why):
    warned, made = module("convergence_warned"), module("convergence_arms").setting(small.baseline, fault)
    first = warned.first_batch(dataset_path, small, seed=0)
    found = {"uniform": 1.8, "lines": [{"loss": 9.0, "collapsed": collapsed}] * 10}
    assert warned.warning(made, found, first) == why


def test_the_runs_that_were_warned_of_are_counted(module, small, dataset_path):
    warned = module("convergence_warned")
    found = {"nearest_center": 0.05, "uniform": 1.8, "lines": [{"loss": 9.0, "collapsed": 5.0}]}
    counts = warned.count(dataset_path, small, {"baseline": {0: found, 1: {**found, "nearest_center": 0.5}}})
    assert warned.rows("demo", counts) == ["| demo | stuck | 0 | 0 | 1 |", "| demo | others | 0 | 0 | 1 |"]
    assert warned.state(replace(small, classes_are_photos=True), found) == "others"


@pytest.mark.parametrize("script, flag, words", [
    ("convergence", "--out", "there are no runs in {}: give --seeds to make some"),
    ("convergence_warned", "--runs", "there are no runs in {}: make them with docs/studies/convergence.py")])
def test_without_runs_there_is_nothing_to_tell(module, script, flag, words, dataset_path, tmp_path, monkeypatch):
    seeds = ["--seeds"] if script == "convergence" else []
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # that of the other tests
    monkeypatch.setattr("sys.argv", [script, "--data", str(dataset_path), flag, str(tmp_path), *seeds])
    with pytest.raises(UserError) as raised:
        module(script).main()
    assert str(raised.value) == words.format(tmp_path)
