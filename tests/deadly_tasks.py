"""Tasks that kill their worker. Little is imported here, since each worker that starts anew imports it again."""
import os
import signal
from pathlib import Path
from typing import Any


def die_once(task: Path) -> str | None:
    """Kills its worker when it does the task for the first time."""
    if not task.exists():
        task.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task.name


def die(task: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def attempt_or_die(task: Any) -> Any:
    """Packs a shard, but dies at the fourth of split train."""
    from preprocess.packing.pack import _attempt, note_attempt
    if (task.split, task.number) != ("train", 3):
        return _attempt(task)
    if note_attempt(task.output, "train-000003"):
        os.kill(os.getpid(), signal.SIGKILL)
    return _attempt(task)
