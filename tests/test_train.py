"""The training loop through its command line: real processes, real ranks, real kills."""
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._python_dispatch import TorchDispatchMode

import train as train_page
from arcshard import checkpoint, console
from arcshard.distributed import World
from loader import Batch, Selection
from loader.streams import Stream
from model import ModelConfig, build_embedder
from pages.report import LEARNING, SPEED
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from retrieval.run.model import load_model
from shards import Dataset
from tests.forked import Forked, started_ranks
from training import checkpointer, optim
from training import log as training_log
from training import state as training_state
from training import step as training_step
from training.schedules import passed
from training.stage import stage_seed
from training.step import Step

TINY = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--model.dim", "16",
        "--train.size", "32", "--train.global_batch", "12", "--train.log_every", "1", "--train.device", "cpu",
        "--loader.num_threads", "1", "--train.lr", "0.05", "--head.scale", "10", "--head.margin", "0.1",
        "--view.area", "[0.5,1.0]", "--view.brightness", "0.2"]


@pytest.fixture
def train(call, on_ranks, dataset_path):
    def run(out, *options, ranks=0, data=dataset_path):
        words = ["train.py", *TINY, "--data", data, "--out", out, *options]
        return on_ranks(ranks, *words) if ranks else call(*words)
    return run


@pytest.fixture
def train_here(dataset_path, monkeypatch, capsys):
    """The command in this process, for what ends soon: exit code and stderr."""
    def run(out, *options, data=dataset_path, tiny=TINY):
        words = ["train.py", *tiny, "--data", data, "--out", out, *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            console.run(train_page.main)
        return subprocess.CompletedProcess(words, ended.value.code or 0, *capsys.readouterr())
    return run


def losses(run):
    """(step, position, loss) of each logged step."""
    return [(line["step"], line["position"], line["loss"]) for line in training_log.read(run)]


def start(out, dataset_path, *options, command=()):
    """The command in the background, once it has logged three steps."""
    process = Forked(*command, "train.py", *TINY, "--data", dataset_path, "--out", out, *options)
    await_steps(out, process)
    return process


def await_steps(out, process):
    """Wait until the run has logged three steps."""
    until = time.monotonic() + 120
    while len(losses(out)) < 3:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory, call, dataset_path):
    """A run of 4 epochs, 20 steps, that nothing stopped."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    done = call("train.py", *TINY, "--data", dataset_path, "--out", out, "--train.epochs", "4")
    assert done.returncode == 0, done.stderr
    return out


def test_metrics_hold_what_the_contract_names(unbroken):
    steps = training_log.read(unbroken)
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert steps[-1].keys() >= {"step", "position", "epoch", "loss", "lr", "margin", "images_per_s", "data_wait_share"}
    assert steps[-1]["position"] == 240 and steps[-1]["epoch"] == 4.0
    assert all(line["images_per_s"] > 0 and 0 <= line["data_wait_share"] <= 1 for line in steps)
    validated = training_log.read(unbroken, training_log.VALIDATION)
    assert [line["epoch"] for line in validated] == [1.0, 2.0, 3.0, 4.0]
    assert validated[-1]["val_recall@1"] > 0.5, "the made-up classes differ in color"
    first, last = validated[0], validated[-1]
    assert 0 <= last["dead_centers"] < 1 and last["norm"] > 0 and 0 < last["wrong_angle"] < math.pi
    assert first["target_cosine"] < last["target_cosine"] <= 1, "photos come nearer to their centers"


def test_the_logs_have_every_figure_that_the_report_draws(unbroken):
    logs = [training_log.read(unbroken, name) for name in (training_log.NAME, training_log.VALIDATION)]
    logged = {key for log in logs for key in log[-1]}
    assert {curve.key for chart in (*LEARNING, *SPEED) for curve in chart.curves} - logged == {
        "cuda_peak_mb", "device_wait_share", "val_photo_recall@1", "val_photo_gap"}, "of a GPU, and of train.best"


def test_it_learns(unbroken):
    loss = [line["loss"] for line in training_log.read(unbroken)]
    assert sum(loss[-4:]) < 0.8 * sum(loss[:4])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on_as_if_unbroken(how, tmp_path, dataset_path, train,
                                                                         unbroken):
    process = start(tmp_path / "run", dataset_path, "--train.epochs", "4")
    process.send_signal(how)
    said, _ = process.communicate(timeout=60)
    position = checkpoint.load(tmp_path / "run").loader["position"]
    assert process.returncode == 128 + how and f"stopped after {position:,} images" in said and position < 240
    assert train(tmp_path / "run", "--train.epochs", "4").returncode == 0
    assert losses(tmp_path / "run") == losses(unbroken), "bit for bit"


def test_after_kill_9_it_continues_from_the_last_checkpoint_to_the_same_end(tmp_path, dataset_path, train, unbroken):
    options = ["--train.epochs", "4", "--train.checkpoint_every", "0.4", "--train.watch", "tensorboard"]
    process = start(tmp_path / "run", dataset_path, *options)
    process.kill()
    process.communicate()
    time.sleep(1)  # TensorBoard orders files by the second of their start, and then by process: this one is the older
    assert train(tmp_path / "run", *options).returncode == 0
    assert losses(tmp_path / "run") == losses(unbroken)
    drawn = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("train/loss")
    assert [(point.step, np.float32(point.value)) for point in drawn] == [
        (position, np.float32(loss)) for _, position, loss in losses(unbroken)]
    ours, theirs = checkpoint.load(tmp_path / "run"), checkpoint.load(unbroken)
    for part in ("embedder", "head"):
        for name, value in getattr(theirs.weights, part).items():
            assert torch.equal(getattr(ours.weights, part)[name], value), name


def test_a_step_that_was_traced_and_tried_trains_to_the_same_losses(train_here, unbroken, tmp_path, monkeypatch):
    """Up to rounding, though the graph runs without a compiler: the gradients' sums may have another order."""
    make = training_step.CompiledStep
    monkeypatch.setattr(training_step, "CompiledStep", lambda step, c, backend: make(step, c, "eager"))
    done = train_here(tmp_path / "run", "--train.epochs", "4", "--train.compile", "always")
    assert done.returncode == 0 and "the step runs compiled" in done.stdout.splitlines(), done.stdout
    assert [loss for _, _, loss in losses(tmp_path / "run")] == pytest.approx(
        [loss for _, _, loss in losses(unbroken)], rel=1e-4)


def test_a_finished_run_says_so(train_here, unbroken):
    before = (unbroken / checkpoint.NAME).stat().st_mtime_ns
    done = train_here(unbroken, "--train.epochs", "4")
    assert done.returncode == 0 and "already trained: 240 images" in done.stdout
    assert (unbroken / checkpoint.NAME).stat().st_mtime_ns == before


def test_another_configuration_does_not_continue_a_run(train_here, unbroken, refused):
    refused(train_here(unbroken, "--train.epochs", "4", "--train.lr", "0.5"), "train.lr was 0.05 and is 0.5")


@pytest.fixture
def stopped_after(train_here, monkeypatch):
    """A run killed right after the checkpoint of a step, and then continued."""
    def run(step, out, *options):
        saved = checkpoint.save

        def save_and_die(run, state):
            saved(run, state)
            if state.step == step:
                raise console.UserError("killed")

        monkeypatch.setattr(checkpoint, "save", save_and_die)
        assert train_here(out, *options).returncode == 2
        monkeypatch.setattr(checkpoint, "save", saved)
        assert train_here(out, *options).returncode == 0
    return run


def test_lines_cover_the_same_steps_after_a_stop_between_them(tmp_path, train_here, stopped_after):
    """A checkpoint every 5 steps, a line every 3: the steps that no line covers yet are in the checkpoint."""
    options = ["--train.epochs", "2", "--train.log_every", "3"]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    assert [step for step, _, _ in losses(tmp_path / "run")] == [3, 6, 9, 10]


def test_a_head_that_needs_class_sizes_and_keeps_statistics_resumes_exactly(train_here, stopped_after, tmp_path):
    """AdaFace's running mean of norms is the head's only state beside its centers: it must be in the checkpoint."""
    options = ["--train.epochs", "2", "--head.kind", "adaface", "--head.centers", "3",
               "--head.class_size_margin", "range", "--head.class_weights", "log", "--head.smoothing", "0.1",
               "--head.scale", "auto"]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken") != []
    assert checkpoint.load(tmp_path / "run").weights.head["norm_mean"] != 20


@pytest.mark.heavy
def test_two_ranks_stop_at_sigterm_and_one_continues(tmp_path, dataset_path, train):
    """torchrun passes the signal on; both ranks agree on the step after which they stop."""
    options = ["--train.epochs", "4", "--train.global_batch", "24"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(tmp_path / "run", dataset_path, *options, command=torchrun)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=90)
    position = checkpoint.load(tmp_path / "run").loader["position"]
    assert f"stopped after {position:,} images" in said and process.returncode != 0
    before = losses(tmp_path / "run")
    done = train(tmp_path / "run", "--train.epochs", "4")
    assert done.returncode == 0, done.stderr
    after = losses(tmp_path / "run")
    assert after[:len(before)] == before and after[-1][1] == 240
    steps = [b - a for (_, a, _), (_, b, _) in zip(after[len(before):], after[len(before) + 1:])]
    assert set(steps) == {12} and all(loss < 20 for _, _, loss in after)


@pytest.mark.heavy
def test_two_ranks_validate_as_one_and_go_on_exactly_when_one_dies(tmp_path, dataset_path, train):
    """kill -9 of a rank: torchrun starts both again, which continue from the last checkpoint to the same losses.

    Steps of 24 images on 2 ranks; the val split of 18 leaves the ranks unequal shares.
    """
    options = ["--train.epochs", "12", "--train.global_batch", "24", "--train.checkpoint_every", "0.4"]
    assert train(tmp_path / "unbroken", *options, ranks=2).returncode == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1",
                "--run-path", "--start-method", "fork"]  # forked from torchrun, which has torch loaded
    process = start(tmp_path / "run", dataset_path, *options, command=torchrun)
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[-1])
    os.kill(child, signal.SIGKILL)
    said = process.communicate(timeout=120)
    assert process.returncode == 0 and "trained 720 images" in said[0], said
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken") != []
    validated = training_log.read(tmp_path / "run", training_log.VALIDATION)
    assert len(validated) == 12
    for line in validated:
        assert line["val_recall@1"] * 18 == pytest.approx(round(line["val_recall@1"] * 18))


@pytest.mark.heavy
@pytest.mark.parametrize("how, reason", [(signal.SIGKILL, "its connection ended"),
                                         (signal.SIGSTOP, "it did not answer in time")])
def test_a_rank_that_is_lost_ends_the_others_in_a_sentence(how, reason, tmp_path, dataset_path):
    """Two ranks without torchrun, which would end the second one itself."""
    words = ["train.py", *TINY, "--data", dataset_path, "--out", tmp_path / "run", "--train.epochs", "500",
             "--train.rank_timeout", "3"]
    with started_ranks(2, *words) as (process, other):
        await_steps(tmp_path / "run", process)
        other.send_signal(how)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert said.splitlines()[-1] == (f"train.py: rank 0 lost another ({reason}): see that rank's own message; "
                                     "the same command continues from the last checkpoint")


@pytest.mark.heavy
def test_micro_batches_and_ranks_add_up_to_the_same_gradients(train, tmp_path):
    """Without statistics of batches nothing else depends on how a batch is cut: losses agree to float's tolerance."""
    options = ["--train.epochs", "1", "--train.batchnorm_frozen_from", "0"]
    runs = {"whole": ([], 0), "micro": (["--train.micro_batch", "4"], 0), "ranks": (["--train.micro_batch", "3"], 2)}
    for name, (more, ranks) in runs.items():
        done = train(tmp_path / name, *options, *more, ranks=ranks)
        assert done.returncode == 0, done.stderr
    whole, micro, ranks = ([loss for _, _, loss in losses(tmp_path / name)] for name in runs)
    assert len(whole) == 5 and micro == pytest.approx(whole, rel=1e-4) and ranks == pytest.approx(whole, rel=1e-4)
    with_statistics = tmp_path / "statistics"
    train(with_statistics, "--train.epochs", "1", "--train.micro_batch", "4")
    assert losses(with_statistics)[-1][2] != pytest.approx(whole[-1], rel=1e-2)


@pytest.mark.heavy
def test_a_sharded_head_trains_as_a_whole_one_which_can_go_on_from_its_checkpoint(train_here, dataset_path, tmp_path):
    """6 classes on 2 ranks, in micro-batches, until SIGTERM; then one rank that holds all."""
    options = ["--train.batchnorm", "frozen", "--model.neck", "none", "--train.epochs", "4", "--head.smoothing", "0.1",
               "--head.learn_scale", "true", "--train.clip", "0.5"]
    assert train_here(tmp_path / "whole", *options).returncode == 0
    words = ["train.py", *TINY, "--data", dataset_path, "--out", tmp_path / "run", *options, "--head.sharded", "true",
             "--train.micro_batch", "3"]
    with started_ranks(2, *words) as both:
        await_steps(tmp_path / "run", both[0])
        for rank in both:
            rank.send_signal(signal.SIGTERM)
        for rank in both:
            rank.communicate(timeout=90)
    assert 36 <= checkpoint.load(tmp_path / "run").loader["position"] < 240
    assert train_here(tmp_path / "run", *options).returncode == 0
    expected = [loss for _, _, loss in losses(tmp_path / "whole")]
    assert [loss for _, _, loss in losses(tmp_path / "run")] == pytest.approx(expected, rel=1e-3)
    ours, theirs = (checkpoint.load(tmp_path / name).optimizer["state"] for name in ("run", "whole"))
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_a_loss_that_rests_where_nothing_is_learned_is_named(train_here, tmp_path):
    """Hardly any learning rate, and a scale so small that the loss of random directions is that of equal ones."""
    done = train_here(tmp_path / "run", "--train.epochs", "2.4", "--train.lr", "1e-9", "--head.scale", "2",
                      "--head.margin", "0", "--model.dim", "512")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("near the 1.79 of embeddings which all point one way") == 1  # ln 6
    assert "likely because train.lr 1e-09 is below 0.001, the least that sgd is known to train with" in done.stdout
    assert training_log.read(tmp_path / "run")[-1]["collapsed_loss"] == pytest.approx(math.log(6))


@pytest.mark.parametrize("options, sentence", [
    (["--train.lrr", "1"], "there is no option train.lrr (did you mean train.lr?);"),
    (["--train.ep", "3"], "there is no option train.ep (did you mean train.epochs?);"),
    (["--train.lr", "fast"], "train.lr is fast: give a number;"),
    (["--train.lr", "null"], "train.lr is null: give a number;"),
    (["--train.lr", ".nan"], "train.lr is nan: give a positive number"),
    (["--train.lr", "-1"], "train.lr is -1: give a positive number"),
    (["--train.epochs", ".inf"], "train.epochs is inf: give a positive number"),
    (["--train.backbone_lr", "-1"], "train.backbone_lr is -1: give 0 or more"),
    (["--train.size", "1.5"], "train.size is 1.5: give a whole number;"),
    (["--train.margin", "0.3"], "there is no option train.margin (did you mean head.margin?);"),
    (["--train", "5"], "train is 5: give its fields one by one;"),
    (["--head.scale", "x"], "head.scale is x: give a number or auto;"),
    (["--view.area", "[0.5,x]"], "view.area is [0.5,x]: give a list of 2 numbers;"),
    (["--view.jpeg", "5"], "view.jpeg is 5: give a list of 2 whole numbers or null;"),
    (["--select.mix", "{a: x}"], "select.mix is {a: x}: give a mapping of names to numbers;"),
    (["--model.neck", "x"], "model.neck is x: give one of bn, bn-prelu, swish, ln, linear, none;"),
    (["--train.lr.x", "5"], "there is no option train.lr.x (did you mean train.lr?);"),
    (["--train", "{lrr: 1}"], "there is no option train.lrr (did you mean train.lr?);"),
    (["--select.mix.a", "x"], "select.mix.a is x: give a number;"),
    (["--config", "no.yaml"], "config is no.yaml: give a YAML file;"),
    (["--config", "{train: 5}"], "--config: train is 5: give a mapping of its fields"),
    (["--config", "{train: {lr: x}}"], "--config: train.lr is x: give a number;"),
    (["--view.area", "[0.5,0.2]"], "view.area is (0.5, 0.2): give two rising shares"),
    (["--train.epochs", "0"], "train.epochs is 0: give a positive number"),
    (["--head.margin", "2"], "head.margin is 2: give an angle in radians"),
    (["--head.scale", "0"], "head.scale is 0: give a positive number"),
    (["--train.momentum", "1"], "train.momentum is 1: give 0 or more, below 1"),
    (["--loader.num_threads", "0"], "loader.num_threads is 0: give a positive number"),
    (["--train.micro_batch", "0"], "train.micro_batch is 0: give a positive number, or null"),
    (["--train.micro_batch", "8"], "train.micro_batch 8 does not divide the 12 images of a rank's part of the global "
                                   "batch: use 4, or another global_batch"),
    (["--train.device", "cuda"], "there is no GPU for process 0 of this node: train.device cuda needs a GPU for each"),
    (["--model.dim", "0"], "model.dim is 0: give a positive number"),
    (["--train.first_size", "64"], "train.first_size is 64: give at most train.size, which is 32"),
    (["--train.size_warmup", "2"], "train.size_warmup is 2: give a share"),
    (["--select.balance", "2"], "select.balance is 2: give 0 to 1"),
    (["--select.subset", "none.txt"], "none.txt cannot be read (No such file or directory): give another"),
    (["--train.batchnorm", "synced"], "train.batchnorm synced needs CUDA, but this run is on the CPU"),
    (["--train.batchnorm_frozen_from", "-1"], "train.batchnorm_frozen_from is -1: give an epoch from 0 on"),
    (["--train.precise_batchnorm", "-1"], "train.precise_batchnorm is -1: give 0 or more"),
    (["--train.frozen", "stem"],
     "train.frozen is stem: give one of none, backbone, neck, head or a list of backbone, neck, head"),
    (["--train.frozen", "[head,neck,backbone]"], "leave out one of them, or there is nothing to train"),
    (["--train.rank_timeout", "0"], "train.rank_timeout is 0: give a positive number"),
    (["--train.keep", "0"], "train.keep is 0: give a positive number"),
    (["--train.best", "gap"], "train.best is gap: give one of none, val_recall@1"),
    (["--train.ema", "0"], "train.ema is 0: give a half-life in images"),
    (["--train.on_bad_loss", "x"], "train.on_bad_loss is x: give one of stop, skip"),
    (["--train.amp", "half"], "train.amp is half: give one of auto, none, bf16, fp16"),
    (["--train.compile", "maybe"], "train.compile is maybe: give one of auto, always, never"),
    (["--head.init_images", "0"], "head.init_images is 0: give 1 or more, or null"),
    (["--train.warmup", "2"], "train.warmup is 2: give a share of the run"),
    (["--train.global_batch", "1"], "leaves BatchNorm one image at a time"),
    (["--train.micro_batch", "1"], "leaves BatchNorm one image at a time"),
    (["--model.backbone", "test_vit", "--train.size", "50"], "test_vit cannot take images of 50 × 50 pixels"),
    (["--model.dim", "1000000000000"], "there is too little memory"),
    (["--train.global_batch", "1000000"], "train.global_batch is 1000000: give at most 600, the images that there are"),
    (["--train.epochs", "0.2"], "the only update has learning rate 0, as train.warmup is 0.1 and train.global_batch 12 "
                                "holds all 12 images"),
])
def test_wrong_options_are_one_sentence(options, sentence, train_here, tmp_path, refused):
    refused(train_here(tmp_path / "run", *options), sentence)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text, sentence", [
    ("train: {lrr: 0.2}", "there is no option train.lrr (did you mean train.lr?);"),
    ("train: {margin: 0.2}", "there is no option train.margin (did you mean head.margin?);"),
    ("trian: {lr: 0.2}", "there is no option trian (did you mean train?);"),
    ("lr: 0.2", "there is no option lr (did you mean train.lr?);"),
    ("5: 1", "there is no option 5;"),
    ("train: {5: 1}", "there is no option train.5"),
    ("train: {lr: fast}", "train.lr is fast: give a number;"),
    ("train: {lr: [1]}", "train.lr is [1]: give a number;"),
    ("train: {lr: null}", "train.lr is null: give a number;"),
    ("train: {lr: true}", "train.lr is true: give a number;"),
    ("train: {size: 1.5}", "train.size is 1.5: give a whole number;"),
    ("train: {batchnorm: held}", "train.batchnorm held is now frozen: give frozen;"),
    ("view: {area: 0.5}", "view.area is 0.5: give a list of 2 numbers;"),
    ("view: {area: [0.5]}", "view.area is [0.5]: give a list of 2 numbers;"),
    ("view: {area: [0.5, x]}", "view.area is [0.5, x]: give a list of 2 numbers;"),
    ("view: {area: {a: 1}}", "view.area is {a: 1}: give a list of 2 numbers;"),
    ("select: {mix: [a]}", "select.mix is [a]: give a mapping of names to numbers;"),
    ("model: {backbone: 5}", "model.backbone is 5: give text;"),
    ("model: {neck: null}", "model.neck is null: give one of bn, bn-prelu, swish, ln, linear, none;"),
    ("train: 5", "train is 5: give a mapping of its fields"),
    ("head: [1]", "head is [1]: give a mapping of its fields"),
    ("view: x", "view is x: give a mapping of its fields"), ("view:", "view is null: give a mapping of its fields"),
    ("stages: 3", "stages is 3: give a mapping of names to options"),
    ("stages: {a: 5}", "stages.a is 5: give a mapping of its options"),
    ("stages:", "stages is null: give a mapping of names to options"),
    ("{", "is not a preset"), ("[1]", "is not a preset"),
])
def test_a_mistake_in_a_preset_is_one_sentence_that_names_the_file(text, sentence, train_here, tmp_path, refused):
    (tmp_path / "c.yaml").write_text(text)
    done = train_here(tmp_path / "run", "--config", tmp_path / "c.yaml")
    refused(done, sentence)
    assert done.stderr.startswith(f"train.py: {tmp_path / 'c.yaml'}")


def test_a_file_as_output_is_one_sentence(train_here, tmp_path, refused):
    (tmp_path / "file").write_text("")
    refused(train_here(tmp_path / "file"), "check the path")


def test_photos_without_landmark_cannot_be_trained_on(train_here, photos, tmp_path, refused):
    folder, samples = photos
    pack(samples.assign(split="train"), [folder], tmp_path / "ds", PackOptions(), Engine())
    refused(train_here(tmp_path / "run", data=tmp_path / "ds"), "have no landmark: name them in select.block, or")


def test_photos_of_one_class_cannot_be_trained_on(train_here, dataset_path, tmp_path, refused):
    """Whether the dataset has no other, or the selection takes none."""
    dataset = Dataset(dataset_path)
    (tmp_path / "subset").write_bytes(b"\n".join(dataset.index["key"][dataset.labels == 3]))
    options = ["--select.subset", tmp_path / "subset", "--train.global_batch", "2"]
    refused(train_here(tmp_path / "run", *options), f"the photos to train on in {dataset_path} are of one class")


def test_one_update_is_enough_without_warmup(train_here, tmp_path):
    assert train_here(tmp_path / "run", "--train.epochs", "0.1", "--train.warmup", "0").returncode == 0
    line, = training_log.read(tmp_path / "run")
    assert line["lr"] == 0.05
    done = train_here(tmp_path / "run", "--train.epochs", "0.1", "--train.warmup", "0", "--train.global_batch", "60")
    assert done.returncode == 0 and "already trained: 12 images" in done.stdout


def test_a_run_goes_on_with_changed_data_only_where_that_is_allowed(train_here, tmp_path, refused, photos):
    folder, samples = photos
    run = tmp_path / "run"
    assert train_here(run, "--train.epochs", "1").returncode == 0
    capped = ["--train.epochs", "1", "--select.per_class", "4"]
    refused(train_here(run, *capped), "select.per_class was None and is 4")
    pack(samples[samples["split"] == "train"].iloc[:-3], [folder], tmp_path / "ds", PackOptions(), Engine())
    other = ["--train.epochs", "1", "--train.log_every", "1"]
    refused(train_here(run, *other, data=tmp_path / "ds"), "new run, or allow it with --allow-changed-data")
    done = train_here(run, *capped, "--allow-changed-data", data=tmp_path / "ds")
    assert done.returncode == 0 and "already trained: 60 images" in done.stdout
    refused(train_here(run, "--train.epochs", "1", "--view.flip", "0", "--allow-changed-data"), "view.flip was 0.5")


def test_a_killed_run_goes_on_with_other_data(train_here, tmp_path, monkeypatch, photos, refused):
    """The position stays; from there on the stream is that of the new data."""
    saved = checkpoint.save

    def save_and_die(run, state):
        saved(run, state)
        raise console.UserError("killed")

    monkeypatch.setattr(checkpoint, "save", save_and_die)
    assert train_here(tmp_path / "run", "--train.epochs", "2").returncode == 2
    monkeypatch.setattr(checkpoint, "save", saved)
    folder, samples = photos
    pack(samples[(samples["split"] == "train") & (samples["label"] < 4)], [folder], tmp_path / "ds", PackOptions(),
         Engine())
    refused(train_here(tmp_path / "run", "--train.epochs", "2", "--allow-changed-data", data=tmp_path / "ds"),
            "its head has 6 centers, and this dataset needs 4: give another --out")
    options = ["--train.epochs", "2", "--select.balance", "0", "--allow-changed-data"]
    assert train_here(tmp_path / "run", *options).returncode == 0
    assert [position for _, position, _ in losses(tmp_path / "run")] == list(range(12, 121, 12))


@pytest.fixture
def fp16_by_float32(monkeypatch):
    """train.amp fp16 without float16's products, which are slow on a CPU; at first its factor overflows float32."""
    for room in (training_step, training_state, checkpointer, checkpointer):
        monkeypatch.setattr(room, "autocast", lambda c, world: nullcontext())
    monkeypatch.setattr(optim, "START", 2.0 ** 94)
    monkeypatch.setattr(optim, "INTERVAL", 2)


def test_adamw_with_scaled_losses_from_class_means_resumes_exactly(train_here, stopped_after, tmp_path, monkeypatch,
                                                                   fp16_by_float32):
    """Moments and the factor on the loss are in the checkpoint; the means are taken once.

    Some updates overflow: they are left out and counted, but no loss was bad.
    """
    begun, begin = [], training_state.begin_at_means

    def begin_and_note(stage, step):
        before = step.head.weight.detach().clone()
        begin(stage, step)
        begun.append(F.cosine_similarity(step.head.weight, before).max().item())

    monkeypatch.setattr(training_state, "begin_at_means", begin_and_note)
    options = ["--train.epochs", "2", "--train.optimizer", "adamw", "--train.schedule", "constant",
               "--train.lr", "1e-3", "--train.amp", "fp16", "--head.init", "means", "--train.log_every", "2"]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    assert len(begun) == 2 and begun[0] == begun[1] < 0.99, "once in each run, and every center turns"
    ours, theirs = (training_log.read(tmp_path / name) for name in ("run", "unbroken"))
    for name in ("loss", "loss_scale", "overflowed", "skipped"):
        assert [line[name] for line in ours] == [line[name] for line in theirs], name
    assert 0 < sum(line["overflowed"] for line in ours) < 10 and sum(line["skipped"] for line in ours) == 0
    assert training_log.read(tmp_path / "run", training_log.BAD) == []
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    assert training_log.read(tmp_path / "run")[-1]["lr"] == 1e-3
    state = checkpoint.load(tmp_path / "run").optimizer["state"]
    assert all(torch.any(moments["exp_avg_sq"] > 0) for moments in state.values())


@pytest.mark.parametrize("more", [[], ["--train.ema", "60"]])
def test_precise_statistics_resume_exactly(train_here, stopped_after, tmp_path, more):
    options = ["--train.epochs", "2", "--train.precise_batchnorm", "30", *more]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    ours, theirs = (checkpoint.load(tmp_path / name).best_weights.embedder
                    for name in ("run", "unbroken"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


def test_statistics_stand_still_from_the_epoch_on_that_is_asked_for(train_here, tmp_path):
    options = ["--train.epochs", "2", "--train.batchnorm_frozen_from", "1", "--train.keep", "2"]
    assert train_here(tmp_path / "run", *options).returncode == 0
    first, last = (checkpoint.load(tmp_path / "run", name).weights.embedder
                   for name in ("checkpoint-000000000060.pt", "checkpoint.pt"))
    names = [name for name in first if "running" in name]
    assert any("neck" in name for name in names) and all(torch.equal(first[name], last[name]) for name in names)
    assert any(first[name].any() for name in names if "mean" in name)


@pytest.mark.heavy
def test_statistics_freeze_alike_on_all_ranks(train, tmp_path):
    """Each rank has statistics of its own until they freeze; a run that continues then has rank 0's on all of them."""
    options = ["--train.epochs", "3", "--train.batchnorm_frozen_from", "1", "--train.global_batch", "24",
               "--train.keep", "9"]
    assert train(tmp_path / "unbroken", *options, ranks=2).returncode == 0
    shutil.copytree(tmp_path / "unbroken", tmp_path / "run")
    (tmp_path / "run" / "checkpoint-000000000120.pt").replace(tmp_path / "run" / "checkpoint.pt")
    assert train(tmp_path / "run", *options, ranks=2).returncode == 0
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")


def test_averaged_weights_resume_exactly_and_are_what_is_evaluated(train_here, stopped_after, tmp_path):
    options = ["--train.epochs", "2", "--train.ema", "60"]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    ours, theirs = (checkpoint.load(tmp_path / name) for name in ("run", "unbroken"))
    assert training_log.read(tmp_path / "run", training_log.VALIDATION) == training_log.read(tmp_path / "unbroken",
                                                                                             training_log.VALIDATION)
    for part in ("embedder", "head"):
        for name, value in getattr(theirs.average, part).items():
            assert torch.equal(getattr(ours.average, part)[name], value), name
    loaded = load_model(tmp_path / "run").embedder.state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in ours.average.embedder.items())
    assert not torch.equal(ours.weights.embedder["neck.0.weight"], loaded["neck.0.weight"])


def test_the_last_checkpoints_and_the_best_are_kept(train_here, stopped_after, tmp_path, refused, monkeypatch):
    """Validated 0.2, 0.5, 0.4, 0.5 after the epochs: the second is the best, the last two stay, and all can be used."""
    values = iter([0.2, 0.5, 0.4, 0.5])
    monkeypatch.setattr(checkpointer, "validate", lambda *args: {"val_recall@1": next(values)})
    options = ["--train.epochs", "4", "--train.keep", "2", "--train.best", "val_recall@1"]
    stopped_after(15, tmp_path / "run", *options)
    names = sorted(path.name for path in (tmp_path / "run").glob("check*"))
    assert names == ["checkpoint-000000000180.pt", "checkpoint-000000000240.pt", checkpoint.BEST, checkpoint.NAME]
    positions = [checkpoint.load(tmp_path / "run", name).loader["position"] for name in names]
    assert positions == [180, 240, 120, 240]
    assert load_model(tmp_path / "run", checkpoint.BEST).fingerprint != load_model(tmp_path / "run").fingerprint
    with pytest.raises(console.UserError, match="has no x.pt: give --checkpoint one of checkpoint-000000000180.pt"):
        checkpoint.load(tmp_path / "run", "x.pt")


def test_a_validation_that_a_kill_prevented_is_made_up_for(train_here, tmp_path, monkeypatch):
    """Killed while validating the first epoch, then the last: every epoch has its line, as in an unbroken run."""
    train_here(tmp_path / "unbroken", "--train.epochs", "2")
    validate, calls = checkpointer.validate, iter(range(9))

    def die_at_first(*args):
        if next(calls) in (0, 2):
            raise console.UserError("killed")
        return validate(*args)

    monkeypatch.setattr(checkpointer, "validate", die_at_first)
    codes = [train_here(tmp_path / "run", "--train.epochs", "2").returncode for _ in range(4)]
    assert codes == [2, 2, 0, 0]
    ours, theirs = (training_log.read(tmp_path / name, training_log.VALIDATION) for name in ("run", "unbroken"))
    assert ours == theirs and len(ours) == 2


def test_images_that_grow_resume_exactly(train_here, stopped_after, tmp_path):
    options = ["--train.epochs", "2", "--train.first_size", "16", "--train.size", "64", "--train.size_warmup", "0.8"]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    assert train_here(tmp_path / "other", *options[:2]).returncode == 0
    assert losses(tmp_path / "run")[0] != losses(tmp_path / "other")[0]


def test_an_epoch_of_a_selection_has_its_length_and_resumes_exactly(dataset_path, train_here, stopped_after, tmp_path):
    keys = Dataset(dataset_path).index["key"]
    for name in ("block", "moved"):
        (tmp_path / name).write_bytes(b"\n".join(keys[:12]))
    options = ["--train.epochs", "2", "--select.per_class", "5", "--train.checkpoint_every", "0.4"]
    train_here(tmp_path / "unbroken", *options, "--select.block", tmp_path / "block")
    stopped_after(1, tmp_path / "run", *options, "--select.block", tmp_path / "block")
    stream = Stream(Dataset(dataset_path), Selection(block=str(tmp_path / "block"), per_class=5), 0)
    assert stream.epoch_size < 48, "the 48 that are left lie in classes of more than 5"
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    last = training_log.read(tmp_path / "run")[-1]
    assert last["epoch"] >= 2 > (last["position"] - 12) / stream.epoch_size
    done = train_here(tmp_path / "run", *options, "--select.block", tmp_path / "moved")
    assert "already trained" in done.stdout, "where the list lies may change"


def test_a_folder_that_is_no_dataset_is_one_sentence(train, tmp_path, refused):
    refused(train(tmp_path / "run", data=tmp_path / "nowhere"), "there is no folder")


def test_ranks_that_do_not_divide_the_batch_are_one_sentence(train, tmp_path):
    done = train(tmp_path / "run", "--train.global_batch", "13", ranks=2)
    assert done.returncode == 2 and "is not a multiple of the number of ranks: 13 for 2 ranks" in done.stderr


@pytest.mark.parametrize("start, end, every, expected", [
    (0, 10, 10, True), (0, 9, 10, False), (10, 19, 10, False), (9, 11, 10, True), (0, 35, 10, True),
    (5, 8, 2.5, True), (5, 7, 2.5, False)])
def test_an_epoch_ends_in_the_step_that_reaches_it(start, end, every, expected):
    assert passed(start, end, every) is expected


class Waited:
    """Stands for the hand-over of a batch on CUDA."""

    def seconds(self):
        return 0.25


def test_on_a_gpu_a_line_has_what_the_device_waited(tmp_path, monkeypatch):
    """Two batches, 2 seconds: the host's share and the device's are of the same time."""
    clock = iter([0.0, 2.0, 2.0])
    monkeypatch.setattr(training_log.time, "perf_counter", lambda: next(clock))
    log = training_log.MetricsLog(tmp_path, World(0, 1, torch.device("cpu")))
    batch = Batch(torch.zeros(3, 2, 2, 3), torch.zeros(3), torch.arange(3), torch.zeros(3, 3), 0, wait=0.1,
                  device_wait=Waited())
    for _ in range(2):
        log.count(torch.tensor(1.0), torch.tensor(False), batch)
    log.line(2, 6, 0.1)
    line, = training_log.read(tmp_path)
    assert (line["data_wait_share"], line["device_wait_share"]) == (0.1, 0.25) and log.wait_share == 0.25


def test_metrics_lines_after_the_checkpoint_are_dropped(tmp_path):
    """What a killed run logged beyond its last checkpoint will be logged again."""
    lines = [{"position": p, "loss": 1.0} for p in (12, 24, 36)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / training_log.NAME).write_text(text + '{"position": 48, "lo')
    training_log.MetricsLog(tmp_path, World(0, 1, torch.device("cpu"))).truncate_after(24)
    assert training_log.read(tmp_path) == lines[:2]


def bad_step(monkeypatch, *numbers):
    """The loss of these steps is NaN."""
    calls = iter(range(1, 1000))

    def forward(self, images, jitter, labels):
        loss = self.head(self.embedder(images, jitter), labels)
        return loss * math.nan if next(calls) in numbers else loss

    monkeypatch.setattr(Step, "forward", forward)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_its_photos(train_here, dataset_path, tmp_path, monkeypatch):
    """Step 2 is bad; the line after step 3 says so. No checkpoint comes of it, and the photos are those of step 2."""
    bad_step(monkeypatch, 2)
    done = train_here(tmp_path / "run", "--train.log_every", "3", "--train.checkpoint_every", "0.6")
    assert done.returncode == 2 and "the loss or its gradient is not finite in step 2" in done.stderr.splitlines()[-1]
    assert "in step 2, whose photos are the last line of" in done.stderr
    record, = training_log.read(tmp_path / "run", training_log.BAD)
    dataset = Dataset(dataset_path)
    assert (record["step"], record["position"]) == (2, 24)
    assert record["ids"] == Stream(dataset, Selection(), 0).sample_at(np.arange(12, 24)).tolist()
    assert record["keys"] == [dataset.index["key"][row].decode() for row in record["ids"]]
    assert not (tmp_path / "run" / checkpoint.NAME).exists() and losses(tmp_path / "run") == []


def test_a_bad_update_is_left_out_and_counted(train_here, tmp_path, monkeypatch):
    """The first update at that: what follows is as if the optimizer had begun with the second."""
    bad_step(monkeypatch, 1, 4)
    done = train_here(tmp_path / "run", "--train.epochs", "1", "--train.log_every", "2", "--train.on_bad_loss", "skip",
                      "--train.warmup", "0")
    assert done.returncode == 0, done.stderr
    lines = training_log.read(tmp_path / "run")
    assert [line["skipped"] for line in lines] == [1, 1, 0] and all(math.isfinite(line["loss"]) for line in lines)
    assert [line["step"] for line in training_log.read(tmp_path / "run", training_log.BAD)] == [1, 4]
    saved = checkpoint.load(tmp_path / "run")
    assert all(value.isfinite().all() for part in vars(saved.weights).values() for value in part.values())


def test_skipping_ends_where_no_update_is_good(train_here, tmp_path, monkeypatch):
    bad_step(monkeypatch, *range(5, 100))
    done = train_here(tmp_path / "run", "--train.log_every", "7", "--train.on_bad_loss", "skip")
    assert done.returncode == 2 and "in step 24, whose photos" in done.stderr and "in the 19 before" in done.stderr
    assert [line["loss"] is None for line in training_log.read(tmp_path / "run")] == [False, True, True]


STAGES = """
stages:
  low: {epochs: 1, first_size: 16, schedule: constant}
  high: {epochs: 2, lr: 0.02, frozen: backbone, view: {area: [0.8, 1.0]}, head: {margin: 0.2}}
"""


@pytest.fixture
def staged(tmp_path):
    """A preset of two stages, as words of the command line."""
    (tmp_path / "stages.yaml").write_text(STAGES)
    return ["--config", tmp_path / "stages.yaml", "--train.checkpoint_every", "0.4"]


def test_stages_follow_each_other_with_options_of_their_own(train_here, staged, dataset_path, tmp_path):
    done = train_here(tmp_path / "run", *staged, "--stages.high.view.flip", "0", "--stages.low.lr=0.04")
    assert done.returncode == 0 and "stage high: trained 180 images" in done.stdout, done.stderr
    lines = training_log.read(tmp_path / "run")
    assert [line["stage"] for line in lines] == 5 * ["low"] + 10 * ["high"]
    assert [line["step"] for line in lines] == list(range(1, 16)), "steps and positions run on"
    assert [line["position"] for line in lines] == list(range(12, 181, 12))
    assert [line["epoch"] for line in lines] == pytest.approx([n / 5 for n in (*range(1, 6), *range(1, 11))])
    assert lines[4]["lr"] == 0.04 and max(line["lr"] for line in lines[5:]) == pytest.approx(0.02, rel=0.1)
    assert {line["margin"] for line in lines[5:]} == {0.2}
    saved = checkpoint.load(tmp_path / "run")
    assert (saved.stage, saved.config["view"]["area"], saved.config["view"]["flip"]) == (
        "high", [0.8, 1.0], 0.0)
    assert [line["stage"] for line in training_log.read(tmp_path / "run", training_log.VALIDATION)] == [
        "low", "high", "high"]
    seeds = [saved.loader["fingerprint"]["seed"], saved.config["train"]["seed"]]
    assert seeds[0] == stage_seed(0, 1) != seeds[1] == 0


def test_a_run_says_what_it_will_do_and_has_done(train_here, staged, dataset_path, tmp_path):
    """A trial says the same and writes nothing, beside a finished run too."""
    tried = train_here(tmp_path / "run", *staged, "--dry-run")
    assert tried.returncode == 0 and not (tmp_path / "run").exists(), tried.stderr
    done = train_here(tmp_path / "run", *staged)
    table, *tries = tried.stdout.split("stage ")
    assert done.stdout.startswith(table)
    assert "low: 5 of 12 images of 16 to 32 pixels; epochs: 1 of 60 images\n" in table
    assert "high: 10 of 12 images of 32 pixels; epochs: 2 of 60 images\n" in table
    assert [line.partition(" tried")[0] for line in tries] == ["low: two steps", "high: two steps"]
    assert re.search(r"stage low: \d+ images/s; about 0 s to come, and \d+ s for the stages after it\n", done.stdout)
    epochs = [line for line in done.stdout.splitlines() if " epoch " in line]
    assert [line.partition(": loss ")[0] for line in epochs] == [
        "stage low: epoch 1 of 1", "stage high: epoch 1 of 2", "stage high: epoch 2 of 2"]
    assert all("val_recall@1 " in line and "images/s" in line for line in epochs)
    assert done.stdout.splitlines()[-1] == f"  python evaluate.py --run {tmp_path / 'run'} --data {dataset_path}"
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert "continues after 180 images" in train_here(tmp_path / "run", *staged, "--dry-run").stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == files


@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_run_of_stages_resumes_exactly(train_here, stopped_after, staged, tmp_path, step):
    """Killed inside a stage, between two, and inside the next."""
    train_here(tmp_path / "unbroken", *staged)
    stopped_after(step, tmp_path / "run", *staged)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    assert "already trained: 180 images" in train_here(tmp_path / "run", *staged).stdout
    ours, theirs = (checkpoint.load(tmp_path / name) for name in ("run", "unbroken"))
    assert all(torch.equal(value, ours.weights.head[key]) for key, value in theirs.weights.head.items())


def test_a_frozen_backbone_stays_and_the_next_stage_can_be_added_later(train_here, staged, tmp_path, refused):
    """What has begun may not change, what has not may."""
    assert train_here(tmp_path / "run", *staged[2:], "--config", staged[1], "--stages.low.frozen", "backbone",
                      "--stages.high.epochs", "0.3").returncode == 0
    saved = checkpoint.load(tmp_path / "run", checkpoint.NAME)
    torch.manual_seed(0)
    fresh = build_embedder(ModelConfig(backbone="test_efficientnet", weights="none", dim=16)).state_dict()
    assert all(torch.equal(value, fresh[key]) for key, value in saved.weights.embedder.items() if "backbone" in key)
    assert not torch.equal(saved.weights.embedder["neck.0.weight"], fresh["neck.0.weight"])
    (tmp_path / "stages.yaml").write_text(STAGES + "  third: {epochs: 1}\n")
    again = [*staged, "--stages.low.frozen", "backbone", "--stages.high.epochs", "0.3"]
    refused(train_here(tmp_path / "run", *again, "--stages.low.lr", "1"), "stages.low: train.lr was 0.05 and is 1.0")
    done = train_here(tmp_path / "run", *again)
    assert done.returncode == 0 and "stage third: trained" in done.stdout
    (tmp_path / "stages.yaml").write_text("stages: {other: {epochs: 1}}")
    refused(train_here(tmp_path / "run", *staged), "has begun the stages low, high, third, but now they are other")


def test_a_stage_on_other_classes_takes_its_centers_along(train_here, staged, tmp_path, photos, dataset_path, refused):
    """The second dataset lacks two of six classes and has them in another order."""
    folder, samples = photos
    kept = samples[(samples["split"] == "train") & (samples["label"] >= 2)]
    pack(kept.assign(label=5 - kept["label"]), [folder], tmp_path / "ds", PackOptions(), Engine())
    other = [*staged, "--stages.high.data", tmp_path / "ds", "--stages.high.lr", "1e-9"]
    refused(train_here(tmp_path / "run", *other), "stages.high keeps the classes of the stage before it, which had 6; "
            "its dataset has 4 or others: set classes to remap or new")
    assert not (tmp_path / "run").exists(), "said before the first stage"
    train_here(tmp_path / "low", *staged, "--stages.high.epochs", "0.3", "--train.keep", "2")
    low = checkpoint.load(tmp_path / "low", "checkpoint-000000000060.pt").weights.head["weight"]
    assert train_here(tmp_path / "run", *other, "--stages.high.classes", "remap").returncode == 0
    high = checkpoint.load(tmp_path / "run")
    torch.testing.assert_close(high.weights.head["weight"], low[[5, 4, 3, 2]], rtol=0, atol=1e-6)
    assert high.landmark_ids == list(reversed(Dataset(dataset_path).landmark_ids[2:]))


@pytest.mark.parametrize("options, sentence", [
    (["--stages.low.lrr", "1"], "stages.low: there is no option train.lrr (did you mean train.lr?);"),
    (["--stages.low.lr", "fast"], "stages.low: train.lr is fast: give a number;"),
    (["--stages.low.epochs", "0"], "stages.low: train.epochs is 0: give a positive number"),
    (["--stages.lo.lr", "1"], "--stages.lo: the preset has no such stage; it has low, high"),
    (["--stages.low"], "--stages.low needs a value, as in --stages.high.lr 0.01"),
    (["--stages.low", "1"], "--stages.low names no field of a stage"),
    (["--stages.low.first_size.x", "1"], "--stages.low.first_size.x: first_size is no section of a stage"),
    (["--stages.low.seed", "1"], "stages.low.seed: all stages of a run share seed: set it for the run"),
    (["--stages.low.model.dim", "1"], "stages.low.model: all stages of a run share model"),
    (["--stages.low.train.lr", "1"], "stages.low.train: leave out train: a stage's bare names are options of train"),
    (["--stages.low.view", "1"], "stages.low.view is 1: give a mapping of its fields"),
    (["--stages.low.classes", "x"], "stages.low: classes is x: give keep, remap or new"),
    (["--stages.low.head.margin", "2"], "stages.low: head.margin is 2: give an angle in radians"),
])
def test_wrong_stages_are_one_sentence(options, sentence, train_here, staged, tmp_path, refused):
    refused(train_here(tmp_path / "run", *staged, *options), sentence)
    assert not (tmp_path / "run").exists()


class Reads(TorchDispatchMode):
    """Counts what makes the host wait for a device: tensors read as numbers."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += func in (aten._local_scalar_dense.default, aten.item.default, aten.nonzero.default,
                               aten.equal.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [
    [], ["--train.ema", "60", "--train.on_bad_loss", "skip", "--train.micro_batch", "6", "--train.amp", "bf16"],
    ["--train.optimizer", "adamw", "--head.kind", "adaface", "--head.centers", "3", "--view.cutout", "1",
     "--train.amp", "fp16"]])
def test_no_step_reads_the_device_between_two_lines(train_here, tmp_path, monkeypatch, fp16_by_float32, options):
    """Steps 2 to 9 of 10 come without a line, a checkpoint or a validation; the lines show that reads are seen."""
    seen = []
    count = training_log.MetricsLog.count

    def counted(self, *args):
        count(self, *args)
        seen.append(reads.count)

    monkeypatch.setattr(training_log.MetricsLog, "count", counted)
    with Reads() as reads:
        done = train_here(tmp_path / "run", "--train.epochs", "2", "--train.log_every", "10",
                          "--train.checkpoint_every", "9", *options)
    assert done.returncode == 0, done.stderr
    within = [after - before for before, after in zip(seen, seen[1:])]
    validated = within.pop(4)  # after the first epoch
    assert within == [0] * 8 and validated > 0 and reads.count > seen[-1]
