"""A dataset written to a local folder: files are written aside and renamed, the kernel keeps the lock."""
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from arcshard.alone import alone
from arcshard.files import sync_folder, whole_file
from preprocess.packing.shard_part import PART, SCRATCH
from shards.format import UNFINISHED


class LocalOutput:
    """See Output: renames and a lock of the kernel."""

    def __init__(self, url: str):
        self.url = url
        self.path, self.work = Path(url), Path(url) / UNFINISHED

    def names(self, folder: str = "") -> set[str]:
        try:
            return {entry.name for entry in (self.path / folder).iterdir()}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> BinaryIO:
        return open(self.path / name, "rb")

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path / name) as f:
            f.write(data)

    def put(self, path: Path, name: str) -> None:
        os.replace(path, self.path / name)

    def move(self, source: str, name: str) -> None:
        if (self.path / source).exists():
            os.replace(self.path / source, self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def remove_tree(self, folder: str) -> None:
        shutil.rmtree(self.path / folder, ignore_errors=True)

    def keep(self, folder: Path, name: str) -> None:
        for path in folder.iterdir():
            with open(path, "rb") as f:
                os.fsync(f.fileno())
        sync_folder(folder)
        try:
            os.rename(folder, self.work / name)
        except OSError as error:
            # A worker that outlived a killed packer may have been first; the same task gives the same bytes.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        sync_folder(self.work)

    def kept(self) -> set[str]:
        return {path.parent.name for path in self.work.glob(f"*/{PART}") if not path.parent.name.startswith(SCRATCH)}

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self.work, ignore_cleanup_errors=True)

    def local_work(self) -> Path:
        self.work.mkdir(parents=True, exist_ok=True)
        return self.work

    def remove_work(self) -> None:
        self.remove_tree(UNFINISHED)

    def free_bytes(self) -> int | None:
        there = next(path for path in [self.path, *self.path.parents] if path.exists())
        return shutil.disk_usage(there).free

    @contextmanager
    def lock(self) -> Iterator[None]:
        """The folder is made if missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with alone(self.path):
            yield
