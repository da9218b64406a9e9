"""A dataset written to object storage: whole uploads, server-side copies, no lock."""
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from preprocess.packing.shard_part import PART
from shards.format import UNFINISHED


class RemoteOutput:
    """See Output: whole uploads and server-side copies."""

    def __init__(self, url: str):
        self.url = url
        # Listings are never cached: other processes write here.
        self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def __reduce__(self) -> tuple:
        return RemoteOutput, (self.url,)

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}".rstrip("/")

    def names(self, folder: str = "") -> set[str]:
        try:
            return {path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(self._at(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.fs.open(self._at(name), "rb"))

    def write(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(self._at(name), data)

    def put(self, path: Path, name: str) -> None:
        self.fs.put_file(str(path), self._at(name))

    def move(self, source: str, name: str) -> None:
        if self.fs.exists(self._at(source)):
            self.fs.mv(self._at(source), self._at(name))

    def remove(self, name: str) -> None:
        if self.fs.exists(self._at(name)):
            self.fs.rm_file(self._at(name))

    def remove_tree(self, folder: str) -> None:
        if self.fs.exists(self._at(folder)):
            self.fs.rm(self._at(folder), recursive=True)

    def keep(self, folder: Path, name: str) -> None:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == PART):
            self.put(path, f"{UNFINISHED}/{name}/{path.name}")

    def kept(self) -> set[str]:
        work = self._at(UNFINISHED)
        found = self.fs.find(work) if self.fs.exists(work) else []
        return {path.rsplit("/", 2)[1] for path in found if path.endswith(f"/{PART}")}

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="arcshard-", ignore_cleanup_errors=True)

    def local_work(self) -> Path:
        folder = Path(tempfile.gettempdir()) / f"arcshard-{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"
        folder.mkdir(exist_ok=True)
        return folder

    def remove_work(self) -> None:
        self.remove_tree(UNFINISHED)
        shutil.rmtree(self.local_work(), ignore_errors=True)

    def free_bytes(self) -> int | None:
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Nothing: object storage has no lock that the death of its holder frees."""
        yield
