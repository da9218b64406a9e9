"""Checkpoints beside the latest: other names of the same file, or copies where there are none."""
import os

import pytest
import torch

from arcshard import checkpoint
from arcshard.checkpoint import NAME, Checkpoint, Weights
from arcshard.console import UserError


def kept(run):
    return {path.name: checkpoint.load(run, path.name).step for path in run.iterdir()}


@pytest.mark.parametrize("links", [True, False])
def test_the_last_and_the_best_stay(tmp_path, monkeypatch, links):
    def refuse(*args):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for step in range(1, 6):
        checkpoint.save(tmp_path, Checkpoint(config={}, step=step))
        for _ in range(2):  # once more does no harm
            checkpoint.keep(tmp_path, 100 * step, 3)
            if step == 2:
                checkpoint.keep_as_best(tmp_path)
    assert kept(tmp_path) == {checkpoint.NAME: 5, checkpoint.BEST: 2, "checkpoint-000000000300.pt": 3,
                              "checkpoint-000000000400.pt": 4, "checkpoint-000000000500.pt": 5}
    checkpoint.keep(tmp_path, 500, 1)
    assert kept(tmp_path) == {checkpoint.NAME: 5, checkpoint.BEST: 2}


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="give train.py's --out"):
        checkpoint.load(tmp_path)
    checkpoint.save(tmp_path, Checkpoint(config={}))
    with pytest.raises(UserError, match="has no checkpoint-best.pt: give --checkpoint one of checkpoint.pt"):
        checkpoint.load(tmp_path, checkpoint.BEST)


def test_every_field_comes_back(tmp_path):
    weights = Weights({"w": torch.ones(2)}, {"weight": torch.zeros(3)})
    saved = Checkpoint({"train": {"size": 9}}, weights, weights, {"side": 1}, "high", {"high": {}}, ["7"], 5, 60,
                       {"loss": 1.0}, {"position": 60}, {"state": {}}, {"value": torch.tensor(2.0)}, "digest")
    checkpoint.save(tmp_path, saved)
    assert repr(checkpoint.load(tmp_path)) == repr(saved)


def test_values_that_have_a_new_name_are_read_with_it(tmp_path):
    old = {"train": {"batchnorm": "held"}}
    checkpoint.save(tmp_path, Checkpoint(old, stages={"main": old}))
    found = checkpoint.load(tmp_path)
    assert found.config == found.stages["main"] == {"train": {"batchnorm": "frozen"}}


def test_a_full_disk_is_a_sentence_and_leaves_the_checkpoint_before(tmp_path, small_files):
    checkpoint.save(tmp_path, Checkpoint(config={}, step=1))
    for size in (10, 10**6):
        with small_files, pytest.raises(UserError, match=r"no room left for .*checkpoint.pt \(File too large\)"):
            checkpoint.save(tmp_path, Checkpoint(config={}, optimizer={"w": torch.ones(size)}))
    assert kept(tmp_path) == {checkpoint.NAME: 1}


def test_one_bit_anywhere_in_the_weights_is_found(tmp_path):
    """torch.load would read another weight without a word."""
    weights = Weights({"w": torch.arange(1000.)}, {"weight": torch.ones(7)})
    checkpoint.save(tmp_path, Checkpoint(config={}, weights=weights))
    data = (tmp_path / NAME).read_bytes()
    at = data.index(torch.arange(500., 520.).numpy().tobytes())
    (tmp_path / NAME).write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1:])
    with pytest.raises(UserError, match=f"^{tmp_path}/{NAME} is damaged"):
        checkpoint.load(tmp_path)
