"""Files that appear whole or not at all (written aside, fsynced, renamed), folder locks, and full disks."""
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from arcshard.console import UserError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the name `path` only when the block ends well.

    A kill at any moment leaves the old file or none, beside a `.part` file that the next try overwrites.
    """
    path = Path(path)
    aside = path.with_name(path.name + ".part")
    try:
        with open(aside, "w+b") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text through `whole_file`."""
    with whole_file(path) as f:
        f.write(text.encode())


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: what was created, renamed or deleted there outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Let only this process write into an existing folder, by flock; the kernel frees it however the process ends.

    Raises UserError if another process holds the lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is locked: another process writes into it; wait until it ends") from None
        yield
    finally:
        os.close(handle)


@contextmanager
def report_full_disk(path: Path | str) -> Iterator[None]:
    """Raise UserError if the disk, a quota or a limit leaves no room for what the block writes to `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(f"no room left for {path} ({error.strerror}): make space and run the same command again"
                        ) from None
