"""Worker processes that do not outlive the command that started them."""
import ctypes
import os
import signal
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent() -> dict[str, Any]:
    """Options of joblib's `loky`: the kernel ends its processes when this one dies, also by kill -9.

    Without them they wait for their next task forever, with 150 MB each.
    """
    return {"initializer": _end_with, "initargs": (os.getpid(),)}


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)
