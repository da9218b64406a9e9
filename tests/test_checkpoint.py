"""Checkpoints beside the latest: other names of the same file, or copies where there are none."""
import os

import pytest

from arcshard import checkpoint
from arcshard.console import UserError


def kept(run):
    return {path.name: checkpoint.load(run, path.name)["step"] for path in run.iterdir()}


@pytest.mark.parametrize("links", [True, False])
def test_the_last_and_the_best_stay(tmp_path, monkeypatch, links):
    def refuse(*args):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    for step in range(1, 6):
        checkpoint.save(tmp_path, {"step": step})
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
    checkpoint.save(tmp_path, {})
    with pytest.raises(UserError, match="--checkpoint must be a file of the run; .* has no checkpoint-best.pt: give "
                                        "checkpoint.pt"):
        checkpoint.load(tmp_path, checkpoint.BEST)
