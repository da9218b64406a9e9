"""Whole files on local disk, fetched once for all processes of a machine, the least recently used making way."""
import fcntl
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO, NamedTuple

import numpy as np

from arcshard.console import UserError, size_text
from arcshard.fields import check
from arcshard.files import has_name, open_or_create, report_full_disk, try_lock
from arcshard.urls import Stopped, read_range
from shards.entry import FileEntry, HashingStream

# Objects of a bucket, compared with what was packed.

BLOCK = 2**24  # bytes a request: what a broken one costs, and what each thread holds
COPIES = 2  # whole downloads that may have wrong bytes


class WrongBytes(UserError):
    """An object that is not the one that was packed."""


def download(url: str, entry: FileEntry, file: BinaryIO, stop: Event) -> None:
    """Write an object into `file`, hashed on the way.

    Raises UserError if it cannot be had, soon after `stop` is set, and WrongBytes if it is not what `entry` says.
    """
    for _ in range(COPIES):
        file.seek(0)
        stream = HashingStream(file)
        for start in range(0, entry["size"], BLOCK):
            size = min(BLOCK, entry["size"] - start)
            stream.write(read_range(url, start, size, stop, least=size))
        if stream.entry == entry:
            return
    raise WrongBytes(f"{url} does not have the sha256 in dataset.json, in {COPIES} downloads: upload the packed file "
                     "again (python -m shards verify names all files that differ)")


# How a dataset in object storage is read.

MAX_WINDOW = 256  # each mapped shard takes a file descriptor, two windows are mapped at once, and 1024 is a usual limit


@dataclass(frozen=True)
class CacheConfig:
    """Where the shards of a dataset in object storage (--data s3://…) stand on local disk; for a folder, nothing."""

    folder: str | None = None
    """Folder for shards and indexes, shared by all processes and runs of a machine; null: ~/.cache/arcshard."""
    size_gb: float = 100.0
    """Most that the folder holds, 10^9 bytes; what was used longest ago makes way."""
    window: int = 16
    """Shards whose photos are shuffled with each other; these and as many to come must fit into the cache."""

    def __post_init__(self) -> None:
        check(0 < self.size_gb < math.inf, "cache.size_gb", self.size_gb, "give a positive number")
        check(1 <= self.window <= MAX_WINDOW, "cache.window", self.window, f"give 1 to {MAX_WINDOW} shards")

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "arcshard")).expanduser()

    @property
    def size(self) -> int:
        """Most that it holds, bytes."""
        return int(self.size_gb * 1e9)


POLL = 0.05  # seconds between two looks at what another process or thread holds
PATIENCE = 600.0  # seconds to wait until others need less
PART = ".part"
LOCK = "lock"
OURS = re.compile(r"[0-9a-f]{64}(\.part)?")  # other files in the folder are not counted, and never removed

Fetch = Callable[[BinaryIO], None]


class CachedFile(NamedTuple):
    """A file of the cache."""

    used: float
    """When it was last opened, s since 1970; 0 for what is not whole, so that a killed fetch makes way first."""
    size: int
    path: Path


class Cache:
    """A folder of files named by the sha256 of their content, never more than `limit` bytes of them.

    All locks are flocks: the kernel frees them however their process ends. Whoever maps a file holds a shared one on it
    as long as the map lives, since mmap keeps a copy of the descriptor; whoever fetches holds NAME.part, which has its
    full size from the start, alone.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, entry: FileEntry) -> Path:
        """Where a file stands, or would stand."""
        return self.folder / entry["sha256"]

    def map(self, entry: FileEntry, fetch: Fetch, stop: Event) -> np.ndarray:
        """The bytes of a file, uint8 (size,), mapped; fetched first if it is not here. It stays while the array lives.

        fetch: writes it, or raises. Raises UserError if the disk is full, if files in use leave it no room, and soon
        after `stop` is set.
        """
        while (mapped := self._mapped(entry)) is None:
            with self._claim(entry) as part:
                if part:
                    self._bring(entry, part, fetch, stop)
                    continue
            _pause(stop)
        return mapped

    def _mapped(self, entry: FileEntry) -> np.ndarray | None:
        path = self.path(entry)
        try:
            f = open(path, "rb")
        except FileNotFoundError:
            return None
        with f:
            fcntl.flock(f, fcntl.LOCK_SH)
            found = os.fstat(f.fileno())
            if found.st_size != entry["size"]:  # a crash of the machine cut it
                path.unlink(missing_ok=True)
                return None
            if not found.st_nlink:  # it made way a moment ago
                return None
            os.utime(f.fileno())
            return np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    @contextmanager
    def _claim(self, entry: FileEntry) -> Iterator[BinaryIO | None]:
        """The file to write it into, ours alone; None if another one has it, or it is here by now."""
        path = self.path(entry)
        part = path.with_name(path.name + PART)
        with open_or_create(part) as f:
            locked = try_lock(f.fileno())
            if locked is None:
                part.unlink(missing_ok=True)
                raise UserError(f"{self.folder} is on a file system without locks: set cache.folder to a local folder")
            if not locked or not has_name(f, part):
                yield None
            elif path.exists():
                part.unlink()
                yield None
            else:
                yield f

    def _bring(self, entry: FileEntry, part: BinaryIO, fetch: Fetch, stop: Event) -> None:
        path = self.path(entry)
        aside = path.with_name(path.name + PART)
        try:
            with report_full_disk(aside):
                self._reserve(entry["size"], part, stop)
                fetch(part)
                part.flush()
                os.fsync(part.fileno())
            with self._locked():
                os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def _reserve(self, size: int, part: BinaryIO, stop: Event) -> None:
        """Give `part` its full size, once there is room."""
        if size > self.limit:
            raise UserError(f"a whole shard or index ({size_text(size)}) does not fit into the cache of "
                            f"{size_text(self.limit)}: raise cache.size_gb")
        part.truncate(0)
        waited = 0.0
        while not self._reserved(size, part):
            if waited >= PATIENCE:
                raise UserError(f"no room for {size_text(size)} in the cache {self.folder}: running processes use all "
                                f"{size_text(self.limit)} of it; raise cache.size_gb, lower cache.window, or give "
                                "each run its own cache.folder")
            _pause(stop)
            waited += POLL

    def _reserved(self, size: int, part: BinaryIO) -> bool:
        with self._locked():
            files = sorted(self._files())
            excess = size + sum(kept.size for kept in files) - self.limit
            for kept in files:
                if excess > 0 and _remove_unused(kept.path):
                    excess -= kept.size
            if excess <= 0:
                os.posix_fallocate(part.fileno(), 0, size)
            return excess <= 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold what the folder's files add up to: nobody else makes one larger, or renames one."""
        with open(self.folder / LOCK, "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _files(self) -> Iterator[CachedFile]:
        for path in self.folder.iterdir():
            if OURS.fullmatch(path.name):
                with suppress(FileNotFoundError):  # removed meanwhile
                    info = path.stat()
                    yield CachedFile(0 if path.suffix == PART else info.st_mtime, info.st_size, path)


def _remove_unused(path: Path) -> bool:
    """Remove a file unless somebody holds it; whether that made room."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        if free := try_lock(handle):
            path.unlink(missing_ok=True)
        return bool(free)
    finally:
        os.close(handle)


def _pause(stop: Event) -> None:
    if stop.wait(POLL):
        raise Stopped("the reader of a cache has gone")
