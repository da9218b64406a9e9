"""A run's state in one file that is either whole or not there."""
import pickle
from pathlib import Path
from typing import Any

import torch

from arcshard.console import UserError
from arcshard.files import sha256, whole_file

NAME = "checkpoint.pt"
FORMAT = 1


def save(run: Path, state: dict[str, Any]) -> None:
    """Replace the run's checkpoint."""
    with whole_file(run / NAME) as f:
        torch.save({"format": FORMAT, **state}, f)


def load(run: Path) -> dict[str, Any]:
    """The run's checkpoint, tensors on the CPU. Raises UserError if the folder holds none or another format's."""
    path = run / NAME
    if not path.is_file():
        raise UserError(f"a run is a folder in which train.py left {NAME}; there is none in {run}: "
                        "give train.py's --out")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is not a checkpoint ({type(error).__name__}): delete it to train again") from error
    found = state.get("format") if isinstance(state, dict) else None
    if found != FORMAT:
        raise UserError(f"{path} has checkpoint format {found}, this version reads {FORMAT}: "
                        "use the version that wrote it")
    return state


def fingerprint(run: Path) -> str:
    """sha256 of the checkpoint: embeddings belong to exactly one."""
    return sha256(run / NAME)
