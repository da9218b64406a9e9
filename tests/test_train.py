"""The training loop through its command line: real processes, real ranks, real kills."""
import json
import signal
import subprocess
import sys
import time

import pytest
import torch

import train as train_page
from arcshard import checkpoint, console, metrics_log
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
        with pytest.raises(SystemExit) as ended:
            console.run(train_page.main)
        return subprocess.CompletedProcess(words, ended.value.code or 0, *capsys.readouterr())
    return run


def losses(run):
    """(step, position, loss) of each logged step."""
    return [(line["step"], line["position"], line["loss"]) for line in metrics_log.read(run) if "loss" in line]


def start(out, dataset_path, *options):
    """The command in the background, once it has logged a step."""
    process = subprocess.Popen([sys.executable, "train.py", *TINY, "--data", dataset_path, "--out", out, *options],
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
    lines = metrics_log.read(unbroken)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 21))
    assert steps[-1].keys() >= {"step", "position", "epoch", "loss", "lr", "margin", "images_per_s", "data_wait_share"}
    assert steps[-1]["position"] == 240 and steps[-1]["epoch"] == 4.0
    assert all(line["images_per_s"] > 0 and 0 <= line["data_wait_share"] <= 1 for line in steps)
    assert [line["epoch"] for line in lines if "val_recall@1" in line] == [1.0, 2.0, 3.0, 4.0]


def test_it_learns(unbroken):
    lines = metrics_log.read(unbroken)
    loss = [line["loss"] for line in lines if "loss" in line]
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


@pytest.mark.heavy
def test_two_ranks_train_and_one_continues(tmp_path, train):
    """Steps of 12 images on 2 ranks, then on 1: the stream of samples goes on, the losses stay finite."""
    done = train(tmp_path / "run", "--train.epochs", "2", "--train.global_batch", "24", ranks=2)
    assert done.returncode == 0, done.stderr
    two = losses(tmp_path / "run")
    assert [position for _, position, _ in two] == [24, 48, 72, 96, 120]
    again = train(tmp_path / "two", "--train.epochs", "2", "--train.global_batch", "24", ranks=2)
    assert again.returncode == 0 and losses(tmp_path / "two") == two, "two ranks are deterministic"
    state = checkpoint.load(tmp_path / "run")
    state["loader"]["position"], state["step"] = 72, 3
    checkpoint.save(tmp_path / "run", state)
    assert train(tmp_path / "run", "--train.epochs", "2").returncode == 0
    assert [position for _, position, _ in losses(tmp_path / "run")] == [24, 48, 72, 84, 96, 108, 120]


@pytest.mark.parametrize("options, sentence", [
    (["--train.lrr", "1"], "unrecognized arguments: --train.lrr 1; did you mean train.lr"),
    (["--train.lr", "fast"], 'Parser key "train.lr": Expected float. Got value: fast'),
    (["--model.neck", "x"], "Expected one of ['bn', 'bn-prelu', 'swish', 'none']. Got value: x"),
    (["--config", "no.yaml"], "File does not exist"),
    (["--view.area", "[0.5,0.2]"], "area must be two rising shares in (0, 1]; got (0.5, 0.2)"),
    (["--train.epochs", "0"], "train.epochs must be positive; got 0"),
    (["--head.margin", "2"], "margin is an angle in radians, 0 <= margin < pi/2; got 2.0"),
    (["--head.scale", "0"], "scale must be positive; got 0.0"),
    (["--train.warmup", "2"], "train.warmup is a share of the run in [0, 1]; got 2"),
])
def test_wrong_options_are_one_sentence(options, sentence, train_here, tmp_path, refused):
    refused(train_here(tmp_path / "run", *options), sentence)
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_in_a_preset_is_one_sentence(train_here, tmp_path, refused):
    (tmp_path / "c.yaml").write_text("train: {lrr: 0.2}\n")
    refused(train_here(tmp_path / "run", "--config", tmp_path / "c.yaml"),
            "Group 'train' does not accept option 'lrr'; did you mean train.lr")


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
