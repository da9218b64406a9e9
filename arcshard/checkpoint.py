"""A run's state in files that are either whole or not there: the latest, some before it, and the best."""
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from arcshard.console import UserError
from arcshard.files import sha256, sync_folder, whole_file

NAME = "checkpoint.pt"
BEST = "checkpoint-best.pt"
NUMBERED = "checkpoint-{:012d}.pt"  # images seen
FORMAT = 2


def save(run: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint."""
    with whole_file(run / NAME) as f:
        torch.save({"format": FORMAT, **state}, f)


def keep(run: Path, position: int, count: int) -> None:
    """Keep the run's last `count` checkpoints, of which the latest is that of `position` images."""
    if count > 1:
        _copy(run / NAME, run / NUMBERED.format(position))
    older = sorted(run.glob(NUMBERED.replace("{:012d}", "[0-9]*")))
    for path in older[:-count] if count > 1 else older:
        path.unlink()


def keep_as_best(run: Path) -> None:
    """Let the run's latest checkpoint be its best as well."""
    _copy(run / NAME, run / BEST)


def _copy(source: Path, target: Path) -> None:
    """Another name for the file, which costs no room; a copy where the file system has no such thing."""
    aside = target.with_name(target.name + ".part")
    aside.unlink(missing_ok=True)
    try:
        os.link(source, aside)
    except OSError:
        with open(source, "rb") as old, whole_file(target) as new:
            shutil.copyfileobj(old, new)
    else:
        os.replace(aside, target)
        aside.unlink(missing_ok=True)  # two names of one file are not replaced
        sync_folder(target.parent)


def load(run: Path, name: str = NAME) -> dict[str, Any]:
    """A checkpoint of the run, tensors on the CPU. Raises UserError if the folder has none, or another format's."""
    path = run / name
    if not path.is_file():
        others = ", ".join(sorted(p.name for p in run.glob("checkpoint*.pt")))
        raise UserError(f"a run is a folder in which train.py left {NAME}; there is none in {run}: "
                        "give train.py's --out" if not others else
                        f"--checkpoint must be a file of the run; {run} has no {name}: give {others}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is not a checkpoint ({type(error).__name__}): delete it to train again") from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has checkpoint format {found}, this version reads {FORMAT}: "
                        "use the version that wrote it")
    return state


def weights_to_use(state: dict[str, Any]) -> dict[str, Any]:
    """States of embedder and head for evaluation and answers: their average where the run keeps one."""
    return state["ema"] or state


def fingerprint(run: Path, name: str = NAME) -> str:
    """sha256 of a checkpoint: embeddings belong to exactly one."""
    return sha256(run / name)
