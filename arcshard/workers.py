"""Worker processes that do not outlive the command that started them."""
import ctypes
import os
import signal
import warnings
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> dict[str, Any]:
    """Options of joblib's `loky`: the kernel ends its processes when this one dies, also by kill -9.

    Without them they wait for their next task forever, with 150 MB each. A command that stops early, as on a full disk,
    says why; joblib's warning about the tasks that are left is silenced.
    """
    warnings.filterwarnings("ignore", ".*tasks which were still being processed by the workers have been cancelled")
    return {"initializer": _end_with, "initargs": (os.getpid(),)}


def signal_when_parent_dies(number: int) -> None:
    """Let the kernel send this process a signal when its parent ends; not if that happened before."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


def _end_with(parent: int) -> None:
    signal_when_parent_dies(signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)
