"""Files that appear whole or not at all (written aside, fsynced, renamed), folder locks, and full disks."""
import errno
import fcntl
import hashlib
import itertools
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from arcshard.console import UserError, progress

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)  # EBADF: NFS locks no file open for reading only


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes the name `path` only when the block ends well.

    Of several writers at once the last wins, whole. A kill at any moment leaves the old file or none, beside a `.part`
    file that the next try overwrites. Raises DiskFull.
    """
    path = Path(path)
    with report_full_disk(path), _open_aside(path) as f:
        try:
            yield f
            f.flush()
            os.fsync(f.fileno())
            os.replace(f.name, path)
        except BaseException:
            if has_name(f, f.name):
                os.unlink(f.name)
            raise
    sync_folder(path.parent)


def _open_aside(path: Path) -> BinaryIO:
    """An empty file for one writer alone: the first of NAME.part, NAME.part1, … that no other has locked."""
    for number in itertools.count():
        f = open_or_create(path.with_name(f"{path.name}.part{number or ''}"))
        locked = try_lock(f.fileno())
        if locked and has_name(f, f.name):
            f.truncate()
            return f
        f.close()
        if locked is None:
            Path(f.name).unlink(missing_ok=True)
            return open(path.with_name(f"{path.name}.part-{secrets.token_hex(4)}"), "x+b")
    raise AssertionError


def open_or_create(path: Path) -> BinaryIO:
    """Open a file for reading and writing, as it is, or empty if there is none."""
    return open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))


def try_lock(handle: int) -> bool | None:
    """Lock an open file or folder by flock, unless another process has: whether that worked; None: it has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None


def has_name(f: BinaryIO, path: str | Path) -> bool:
    """Whether the open file has this name: another process may have renamed or removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(f.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text through `whole_file`."""
    with whole_file(path) as f:
        f.write(text.encode())


def sha256(path: str | Path, show: bool = False) -> str:
    """Hex digest of a file's bytes. show: progress, should it take more than two seconds."""
    digest, name = hashlib.sha256(), Path(path).name
    with open(path, "rb") as f, progress(total=os.fstat(f.fileno()).st_size, unit="B", unit_scale=True,
                                         what=f"hash {name}", disable=not show) as bar:
        while part := f.read(2**20):
            digest.update(part)
            bar.update(len(part))
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: what was created, renamed or deleted there outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Locked(UserError):
    """A folder, its only argument, that another process writes into."""

    def __str__(self) -> str:
        return f"{self.args[0]} is locked: another process writes into it; wait until it ends"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Let only this process write into an existing folder, by flock; the kernel frees it however the process ends.

    Raises Locked if another process holds the lock. Warns where folders cannot be locked, as on NFS.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        locked = try_lock(handle)
        if locked is None:
            print(f"{folder} is on a file system without locks: let no other process write into it", file=sys.stderr)
        elif not locked:
            raise Locked(folder)
        yield
    finally:
        os.close(handle)


class DiskFull(UserError):
    """The disk, a quota or a limit leaves no room for a file."""


@contextmanager
def report_full_disk(path: Path | str) -> Iterator[None]:
    """Raise DiskFull if the disk, a quota or a limit leaves no room for what the block writes to `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise DiskFull(f"no room left for {path} ({error.strerror}): make space and run the same command again"
                       ) from None
