"""Let one process at a time write into a folder."""
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arcshard.console import UserError


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold an existing folder by flock; the kernel frees it however the process ends.

    Raises UserError if another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"only one process may write into a folder, but another one writes into {folder}: "
                            "wait for it") from None
        yield
    finally:
        os.close(handle)
