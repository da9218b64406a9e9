"""What TensorBoard and W&B get of a run: the lines of its logs, each once."""
import errno
import json
import sys
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from arcshard.console import UserError
from arcshard.distributed import World
from loader import Batch
from training import log as training_log
from training.log import VALIDATION, MetricsLog, numbers, watched

ALONE = World(0, 1, torch.device("cpu"))
BATCH = Batch(torch.zeros(12, 2, 2, 3), torch.zeros(12), torch.arange(12), torch.zeros(12, 3), replaced=0, wait=0.0)


def train(run, kind, position, end, shift=0.0):
    """A run from `position` to `end` images: a line of 12 images each, validated every 24."""
    log = MetricsLog(run, ALONE)
    log.truncate_after(position)
    with watched(log, kind):
        while position < end:
            position += 12
            log.count(torch.tensor(1.0 / position + shift), torch.tensor(False), BATCH)
            log.line(position // 12, position, position / 24, stage="main", lr=0.1)
            if position % 24 == 0:
                log.append(VALIDATION, stage="main", position=position, **{"val_recall@1": position / 1000})


def curve(reader, tag):
    return [(event.step, pytest.approx(event.value)) for event in reader.Scalars(tag)]


def logged(run, key, name=training_log.NAME):
    return [(line["position"], line[key]) for line in training_log.read(run, name)]


def test_tensorboard_has_each_line_once_however_often_the_run_was_killed(tmp_path):
    """An open TensorBoard sees the same as one that is started afterwards, and none has points that were dropped."""
    train(tmp_path, "none", 0, 24)
    train(tmp_path, "tensorboard", 24, 72)
    opened = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert curve(opened, "train/loss") == logged(tmp_path, "loss") and len(logged(tmp_path, "loss")) == 6
    train(tmp_path, "tensorboard", 36, 96, shift=1.0)
    for reader in (opened.Reload(), EventAccumulator(str(tmp_path / "tensorboard")).Reload()):
        assert curve(reader, "train/loss") == logged(tmp_path, "loss")
        assert curve(reader, "val/recall@1") == logged(tmp_path, "val_recall@1", VALIDATION)
        assert [step for step, _ in curve(reader, "train/loss")] == [12, 24, 36, 48, 60, 72, 84, 96]


GOOD = [{"position": 12, "loss": 1.0}, {"position": 24, "loss": 0.5}]


@pytest.mark.parametrize("damaged", [b'{"position": 16, "lo', b"[]", b"null", b'{"loss": 1.0}', b'{"position": "16"}',
                                     b"\0" * 30, b'{"position": 16, "\xff": 1}', b"", b"[" * 100])
def test_a_damaged_line_is_named_and_left_out(tmp_path, capsys, damaged):
    """A run that goes on drops it, so that it is named once."""
    path = tmp_path / training_log.NAME
    path.write_bytes(b"\n".join([json.dumps(GOOD[0]).encode(), damaged, json.dumps(GOOD[1]).encode(), b'{"position']))
    assert training_log.read(tmp_path) == GOOD
    assert f"{path} line 2 is damaged" in capsys.readouterr().err
    MetricsLog(tmp_path, ALONE).truncate_after(24)
    capsys.readouterr()
    assert training_log.read(tmp_path) == GOOD and capsys.readouterr().err == ""


def test_a_line_follows_one_that_was_cut_short(tmp_path):
    (tmp_path / training_log.NAME).write_text('{"position": 12, "lo')
    train(tmp_path, "none", 0, 12)
    assert [line["position"] for line in training_log.read(tmp_path)] == [12]


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(UserError, match=f"no room left for .*{training_log.NAME}"):
        MetricsLog(tmp_path, ALONE).append(training_log.NAME, position=12)


def test_only_numbers_of_the_two_logs_are_drawn():
    line = {"stage": "low", "step": 3, "position": 36, "loss": None, "lr": 0.1, "skipped": 3}
    assert numbers(training_log.NAME, line) == {"train/lr": 0.1, "train/skipped": 3.0}
    assert numbers(training_log.BAD, line) == {}


def test_wandb_gets_the_same_without_a_network(tmp_path, monkeypatch):
    """A run that goes on is one run of W&B's; its files hold keys and numbers as text."""
    package = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path, "wandb", 0, 24)
    kept = (tmp_path / "wandb-id").read_text()
    train(tmp_path, "wandb", 24, 48)
    package.teardown()  # waits for its writer, as the end of a process does
    first, second = (path.read_bytes() for path in sorted(tmp_path.glob(f"wandb/offline-run-*-{kept}/*.wandb")))
    for text, value in ((first, b"0.024"), (second, b"0.048")):
        assert b"train/loss" in text and b"val/recall@1" in text and value in text
    assert b"0.048" not in first


def test_wandb_that_does_not_start_is_one_sentence(tmp_path, monkeypatch):
    class Refused(Exception):
        pass

    def init(**_):
        raise Refused("no API key")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Error=Refused, Settings=dict))
    with pytest.raises(UserError, match=r"W&B does not start \(no API key\): log in \(wandb login\), set WANDB_MODE"):
        train(tmp_path, "wandb", 0, 12)


@pytest.mark.parametrize("id", [b"", b"\xff", b"../../x", b"a b", b"x" * 10**6])
def test_an_id_for_wandb_that_is_none_is_one_sentence(tmp_path, monkeypatch, id):
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    (tmp_path / "wandb-id").write_bytes(id)
    with pytest.raises(UserError, match="wandb-id holds b'.*', which is no id of a run of W&B: delete it") as error:
        train(tmp_path, "wandb", 0, 12)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_one_sentence(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"train.watch both needs the package {package}, which is missing: pip install"):
        train(tmp_path, "both", 0, 12)
