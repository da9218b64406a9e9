"""The training loop through its command line: real processes, real ranks, real kills."""
import json
import math
import signal
import subprocess
import sys
import time

import pytest
import torch

import train as train_page
from arcshard import checkpoint, console, metrics_log
from loader import Selection
from loader.selection import Stream
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from preprocess.workers.engine import Engine
from shards import Dataset
from train import passed

TINY = ["--model.backbone", "test_efficientnet", "--model.weights", "none", "--model.dim", "16",
        "--train.size", "32", "--train.global_batch", "12", "--train.log_every", "1", "--train.device", "cpu",
        "--train.num_threads", "1", "--train.lr", "0.05", "--head.scale", "10", "--head.margin", "0.1",
        "--view.area", "[0.5,1.0]", "--view.brightness", "0.2"]


@pytest.fixture
def train(call, dataset_path):
    def run(out, *options, ranks=0, data=dataset_path, **kwargs):
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks] if ranks else []
        return call(*command, "train.py", *TINY, "--data", data, "--out", out, *options, **kwargs)
    return run


@pytest.fixture
def train_here(dataset_path, monkeypatch, capsys):
    """The command in this process, for what ends soon: exit code and stderr."""
    def run(out, *options, data=dataset_path):
        words = ["train.py", *TINY, "--data", data, "--out", out, *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            console.run(train_page.main)
        return subprocess.CompletedProcess(words, ended.value.code or 0, *capsys.readouterr())
    return run


def losses(run):
    """(step, position, loss) of each logged step."""
    return [(line["step"], line["position"], line["loss"]) for line in metrics_log.read(run)]


def start(out, dataset_path, *options, command=()):
    """The command in the background, once it has logged three steps."""
    words = [sys.executable, *command, "train.py", *TINY, "--data", dataset_path, "--out", out, *options]
    process = subprocess.Popen(words,
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while len(losses(out)) < 3:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)
    return process


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory, dataset_path):
    """A run of 4 epochs, 20 steps, that nothing stopped."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run([sys.executable, "train.py", *TINY, "--data", dataset_path, "--out", out, "--train.epochs", "4"],
                   check=True, capture_output=True)
    return out


def test_metrics_hold_what_the_contract_names(unbroken):
    steps = metrics_log.read(unbroken)
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert steps[-1].keys() >= {"step", "position", "epoch", "loss", "lr", "margin", "images_per_s", "data_wait_share"}
    assert steps[-1]["position"] == 240 and steps[-1]["epoch"] == 4.0
    assert all(line["images_per_s"] > 0 and 0 <= line["data_wait_share"] <= 1 for line in steps)
    validated = metrics_log.read(unbroken, metrics_log.VALIDATION)
    assert [line["epoch"] for line in validated] == [1.0, 2.0, 3.0, 4.0]
    assert validated[-1]["val_recall@1"] > 0.5, "the made-up classes differ in colour"


def test_it_learns(unbroken):
    loss = [line["loss"] for line in metrics_log.read(unbroken)]
    assert sum(loss[-4:]) < 0.8 * sum(loss[:4])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on_as_if_unbroken(how, tmp_path, dataset_path, train,
                                                                         unbroken):
    process = start(tmp_path / "run", dataset_path, "--train.epochs", "4")
    process.send_signal(how)
    said, _ = process.communicate(timeout=60)
    position = checkpoint.load(tmp_path / "run")["loader"]["position"]
    assert process.returncode == 128 + how and f"stopped after {position:,} images" in said and position < 240
    assert train(tmp_path / "run", "--train.epochs", "4").returncode == 0
    assert losses(tmp_path / "run") == losses(unbroken), "bit for bit"


def test_after_kill_9_it_continues_from_the_last_checkpoint_to_the_same_end(tmp_path, dataset_path, train, unbroken):
    options = ["--train.epochs", "4", "--train.checkpoint_every", "0.4"]
    process = start(tmp_path / "run", dataset_path, *options)
    process.kill()
    process.communicate()
    assert train(tmp_path / "run", *options).returncode == 0
    assert losses(tmp_path / "run") == losses(unbroken)
    ours, theirs = checkpoint.load(tmp_path / "run"), checkpoint.load(unbroken)
    for part in ("embedder", "head"):
        for name, value in theirs[part].items():
            assert torch.equal(ours[part][name], value), name


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
            if state["step"] == step:
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
    """AdaFace's running mean of norms is the head's only state beside its centres: it must be in the checkpoint."""
    options = ["--train.epochs", "2", "--head.kind", "adaface", "--head.centers", "3",
               "--head.class_size_margin", "range", "--head.class_weights", "log", "--head.smoothing", "0.1",
               "--head.scale", "auto"]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken") != []
    assert checkpoint.load(tmp_path / "run")["head"]["norm_mean"] != 20


@pytest.mark.heavy
def test_two_ranks_stop_at_sigterm_and_one_continues(tmp_path, dataset_path, train):
    """torchrun passes the signal on; both ranks agree on the step after which they stop."""
    options = ["--train.epochs", "4", "--train.global_batch", "24"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(tmp_path / "run", dataset_path, *options, command=torchrun)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=90)
    position = checkpoint.load(tmp_path / "run")["loader"]["position"]
    assert f"stopped after {position:,} images" in said and process.returncode != 0
    before = losses(tmp_path / "run")
    done = train(tmp_path / "run", "--train.epochs", "4")
    assert done.returncode == 0, done.stderr
    after = losses(tmp_path / "run")
    assert after[:len(before)] == before and after[-1][1] == 240
    steps = [b - a for (_, a, _), (_, b, _) in zip(after[len(before):], after[len(before) + 1:])]
    assert set(steps) == {12} and all(loss < 20 for _, _, loss in after)


@pytest.mark.heavy
def test_two_ranks_are_deterministic_and_validate_as_one_would(tmp_path, train):
    """Steps of 24 images on 2 ranks; the val split of 18 leaves the ranks unequal shares."""
    runs = [tmp_path / name for name in ("a", "b")]
    for out in runs:
        done = train(out, "--train.epochs", "2", "--train.global_batch", "24", ranks=2)
        assert done.returncode == 0, done.stderr
    assert losses(runs[0]) == losses(runs[1]) and [p for _, p, _ in losses(runs[0])] == [24, 48, 72, 96, 120]
    for line in metrics_log.read(runs[0], metrics_log.VALIDATION):
        assert line["val_recall@1"] * 18 == pytest.approx(round(line["val_recall@1"] * 18))


@pytest.mark.heavy
def test_micro_batches_and_ranks_add_up_to_the_same_gradients(train, tmp_path):
    """Without statistics of batches nothing else depends on how a batch is cut: losses agree to float's tolerance."""
    options = ["--train.epochs", "1", "--train.batchnorm", "held", "--model.neck", "none"]
    runs = {"whole": ([], 0), "micro": (["--train.micro_batch", "4"], 0), "ranks": (["--train.micro_batch", "3"], 2)}
    for name, (more, ranks) in runs.items():
        done = train(tmp_path / name, *options, *more, ranks=ranks)
        assert done.returncode == 0, done.stderr
    whole, micro, ranks = ([loss for _, _, loss in losses(tmp_path / name)] for name in runs)
    assert len(whole) == 5 and micro == pytest.approx(whole, rel=1e-4) and ranks == pytest.approx(whole, rel=1e-4)
    with_statistics = tmp_path / "statistics"
    train(with_statistics, "--train.epochs", "1", "--model.neck", "none", "--train.micro_batch", "4")
    assert losses(with_statistics)[-1][2] != pytest.approx(whole[-1], rel=1e-2)


@pytest.mark.heavy
def test_a_sharded_head_trains_as_a_whole_one_which_can_go_on_from_its_checkpoint(train_here, dataset_path, tmp_path):
    """6 classes on 2 ranks, in micro-batches, until SIGTERM; then one rank that holds all."""
    options = ["--train.batchnorm", "held", "--model.neck", "none", "--train.epochs", "4", "--head.smoothing", "0.1",
               "--head.learn_scale", "true", "--train.clip", "0.5"]
    assert train_here(tmp_path / "whole", *options).returncode == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = start(tmp_path / "run", dataset_path, *options, "--head.sharded", "true", "--train.micro_batch", "3",
                    command=torchrun)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=90)
    assert 36 <= checkpoint.load(tmp_path / "run")["loader"]["position"] < 240
    assert train_here(tmp_path / "run", *options).returncode == 0
    expected = [loss for _, _, loss in losses(tmp_path / "whole")]
    assert [loss for _, _, loss in losses(tmp_path / "run")] == pytest.approx(expected, rel=1e-3)
    ours, theirs = (checkpoint.load(tmp_path / name)["optimizer"]["state"] for name in ("run", "whole"))
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_a_loss_that_rests_where_nothing_is_learnt_is_named(train_here, tmp_path):
    """Hardly any learning rate, and a scale so small that the loss of random directions is that of equal ones."""
    done = train_here(tmp_path / "run", "--train.epochs", "2.4", "--train.lr", "1e-9", "--head.scale", "2",
                      "--head.margin", "0", "--model.dim", "512")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("and 1.79 is that of embeddings which all point one way") == 1  # ln 6
    assert metrics_log.read(tmp_path / "run")[-1]["collapsed_loss"] == pytest.approx(math.log(6))


@pytest.mark.parametrize("options, sentence", [
    (["--train.lrr", "1"], "unrecognized arguments: --train.lrr 1; did you mean train.lr"),
    (["--train.lr", "fast"], 'Parser key "train.lr": Expected float. Got value: fast'),
    (["--model.neck", "x"], "Expected one of ['bn', 'bn-prelu', 'swish', 'none']. Got value: x"),
    (["--config", "no.yaml"], "File does not exist"),
    (["--view.area", "[0.5,0.2]"], "area must be two rising shares in (0, 1]; got (0.5, 0.2)"),
    (["--train.epochs", "0"], "train.epochs must be positive; got 0"),
    (["--head.margin", "2"], "margin is an angle in radians, 0 <= margin < pi/2; got 2.0"),
    (["--head.scale", "0"], "scale must be positive; got 0.0"),
    (["--train.momentum", "1"], "train.momentum lie in [0, 1); got 0.0001 and 1"),
    (["--train.num_threads", "0"], "train.num_threads must be positive"),
    (["--train.micro_batch", "0"], "train.micro_batch must be positive, or null for all at once; got 0"),
    (["--train.micro_batch", "8"], "train.micro_batch must divide each rank's part of the global batch; got 8 for 12 "
                                   "images: choose 4, or another global_batch"),
    (["--train.device", "cuda"], "needs a GPU for each process of this node"),
    (["--model.dim", "0"], "model.dim must be positive; got 0"),
    (["--train.first_size", "64"], "train.first_size must lie in (0, train.size] and train.size_warmup in [0, 1]; got"),
    (["--select.balance", "2"], "select.balance must lie in [0, 1]; got 2.0"),
    (["--select.subset", "none.txt"], "none.txt cannot be read (No such file or directory): give another"),
    (["--train.warmup", "2"], "train.warmup is a share of the run in [0, 1]; got 2"),
])
def test_wrong_options_are_one_sentence(options, sentence, train_here, tmp_path, refused):
    refused(train_here(tmp_path / "run", *options), sentence)
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_in_a_preset_is_one_sentence(train_here, tmp_path, refused):
    (tmp_path / "c.yaml").write_text("train: {lrr: 0.2}\n")
    refused(train_here(tmp_path / "run", "--config", tmp_path / "c.yaml"),
            "Group 'train' does not accept option 'lrr'; did you mean train.lr")


@pytest.mark.parametrize("text", ["train: 5", "{", "[1]"])
def test_a_preset_that_is_no_preset_is_one_sentence(text, train_here, tmp_path, refused):
    (tmp_path / "c.yaml").write_text(text)
    refused(train_here(tmp_path / "run", "--config", tmp_path / "c.yaml"), "train.py: ")


def test_a_file_as_output_is_one_sentence(train_here, tmp_path, refused):
    (tmp_path / "file").write_text("")
    refused(train_here(tmp_path / "file"), "check the path")


def test_photos_without_landmark_cannot_be_trained_on(train_here, photos, tmp_path, refused):
    folder, samples = photos
    pack(samples.assign(split="train"), [folder], tmp_path / "ds", PackOptions(), Engine())
    refused(train_here(tmp_path / "run", data=tmp_path / "ds"), "3 have none: name them in select.block, or")


def test_a_run_goes_on_with_changed_data_only_where_that_is_allowed(train_here, tmp_path, refused, photos):
    folder, samples = photos
    run = tmp_path / "run"
    assert train_here(run, "--train.epochs", "1").returncode == 0
    capped = ["--train.epochs", "1", "--select.per_class", "4"]
    refused(train_here(run, *capped), "select.per_class was None and is 4")
    pack(samples[samples["split"] == "train"].iloc[:-3], [folder], tmp_path / "ds", PackOptions(), Engine())
    other = ["--train.epochs", "1", "--train.log_every", "1"]
    refused(train_here(run, *other, data=tmp_path / "ds"), "new run (or let the data differ: --allow-changed-data)")
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
            "its head has 6 centres, and this dataset needs 4: give another --out")
    options = ["--train.epochs", "2", "--select.balance", "0", "--allow-changed-data"]
    assert train_here(tmp_path / "run", *options).returncode == 0
    assert [position for _, position, _ in losses(tmp_path / "run")] == list(range(12, 121, 12))


def test_adamw_at_a_constant_rate_resumes_exactly(train_here, stopped_after, tmp_path):
    """Its moments are in the checkpoint, and it is another optimizer than SGD."""
    options = ["--train.epochs", "2", "--train.optimizer", "adamw", "--train.schedule", "constant",
               "--train.lr", "1e-3"]
    train_here(tmp_path / "unbroken", *options)
    stopped_after(5, tmp_path / "run", *options)
    assert losses(tmp_path / "run") == losses(tmp_path / "unbroken")
    assert metrics_log.read(tmp_path / "run")[-1]["lr"] == 1e-3
    state = checkpoint.load(tmp_path / "run")["optimizer"]["state"]
    assert all(torch.any(moments["exp_avg_sq"] > 0) for moments in state.values())


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
    last = metrics_log.read(tmp_path / "run")[-1]
    assert last["epoch"] >= 2 > (last["position"] - 12) / stream.epoch_size
    done = train_here(tmp_path / "run", *options, "--select.block", tmp_path / "moved")
    assert "already trained" in done.stdout, "where the list lies may change"


def test_a_folder_that_is_no_dataset_is_one_sentence(train, tmp_path, refused):
    refused(train(tmp_path / "run", data=tmp_path / "nowhere"), "there is no folder")


def test_ranks_that_do_not_divide_the_batch_are_one_sentence(train, tmp_path):
    done = train(tmp_path / "run", "--train.global_batch", "13", ranks=2)
    assert done.returncode == 1 and "must be a multiple of the number of ranks; got 13 for 2 ranks" in done.stderr


@pytest.mark.parametrize("start, end, every, expected", [
    (0, 10, 10, True), (0, 9, 10, False), (10, 19, 10, False), (9, 11, 10, True), (0, 35, 10, True),
    (5, 8, 2.5, True), (5, 7, 2.5, False)])
def test_an_epoch_ends_in_the_step_that_reaches_it(start, end, every, expected):
    assert passed(start, end, every) is expected


def test_metrics_lines_after_the_checkpoint_are_dropped(tmp_path):
    """What a killed run logged beyond its last checkpoint will be logged again."""
    from arcshard.distributed import World
    lines = [{"position": p, "loss": 1.0} for p in (12, 24, 36)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / metrics_log.NAME).write_text(text + '{"position": 48, "lo')
    metrics_log.MetricsLog(tmp_path, 24, World(0, 1, torch.device("cpu")))
    assert metrics_log.read(tmp_path) == lines[:2]


def test_a_loss_that_is_not_finite_stops_the_run(train_here, tmp_path):
    done = train_here(tmp_path / "run", "--train.lr", "1e30", "--train.warmup", "0", "--train.clip", "1e30")
    assert done.returncode == 2 and "the loss must stay finite" in done.stderr.splitlines()[-1]
