"""Where the files of a dataset are: a folder on disk, or one in object storage with a cache in front of it."""
import mmap
import os
from functools import lru_cache, partial
from pathlib import Path
from threading import Event
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from arcshard.console import UserError, expand_home
from arcshard.files import sha256
from arcshard.urls import is_url, read_object
from shards.format import MANIFEST, shard_name
from shards.manifest import parse_manifest, read_manifest
from shards.remote import Cache, CacheConfig, download

# A Python mmap keeps a file descriptor (until 3.13), and a process often has only 1024 of them.
MAX_OPEN_SHARDS = 256


class Folder(Protocol):
    """The files of a dataset, by the names that format.py gives them."""

    manifest: dict[str, Any]

    @property
    def path(self) -> str | Path:
        """Where it is: a URL, or a path without ~."""

    def file(self, name: str) -> Path:
        """A file on this machine's disk, all but tars; it is not there if the dataset has none.

        Its sha256 is compared when it is first asked for. Raises UserError for a file that is damaged or gone.
        """

    def shard(self, split: str, number: int, stop: Event) -> np.ndarray:
        """The bytes of a tar, uint8 (size,), mapped. `stop`, once set, ends the wait for them with a UserError."""


def open_folder(where: str | Path, cache: CacheConfig = CacheConfig()) -> Folder:
    """The folder at a path or URL. Raises UserError if it is no dataset, or out of reach."""
    return RemoteFolder(str(where), cache) if is_url(where) else LocalFolder(Path(expand_home(where)))


class LocalFolder:
    """A folder on disk."""

    def __init__(self, path: Path):
        self.path, self.manifest = path, read_manifest(path)
        self._checked: set[str] = set()
        self._map = lru_cache(MAX_OPEN_SHARDS)(partial(_map_shard, path))

    def file(self, name: str) -> Path:
        path, entry = self.path / name, self.manifest["files"].get(name)
        if entry and name not in self._checked:
            if not path.is_file():
                raise UserError(f"{path} is missing: run python -m shards repair {self.path}")
            if sha256(path) != entry["sha256"]:  # 0.1 s for the index of 4 M photos
                raise UserError(f"{path} is damaged, its bytes are not those that were packed: run python -m shards "
                                f"repair {self.path}")
            self._checked.add(name)
        return path

    def shard(self, split: str, number: int, stop: Event) -> np.ndarray:
        return self._map(split, number)


class RemoteFolder:
    """A folder in object storage, whose files are brought whole into a cache on first use.

    dataset.json is read each time, and identifies the other files by sha256, so that two datasets never mix. What
    `file` returned stays in the cache as long as this object lives, what `shard` returned as long as the array does.
    """

    def __init__(self, url: str, config: CacheConfig):
        self.path = url.rstrip("/")
        self._cache = Cache(config.path, config.size)
        self.manifest = read_remote_manifest(self.path)
        self._files: dict[str, np.ndarray] = {}
        self._shards: WeakValueDictionary[tuple[str, int], np.ndarray] = WeakValueDictionary()

    def file(self, name: str) -> Path:
        entry = self.manifest["files"].get(name)
        if entry is None:
            return self._cache.folder / name
        path = self._cache.path(entry)
        if name not in self._files:
            self._files[name] = self._fetched(name, Event())
            if sha256(path) != entry["sha256"]:  # corrupted in the cache: only a fetch compares bytes
                path.unlink()
                self._files[name] = self._fetched(name, Event())
        return path

    def shard(self, split: str, number: int, stop: Event) -> np.ndarray:
        mapped = self._shards.get((split, number))
        if mapped is None:
            mapped = self._shards[split, number] = self._fetched(f"{shard_name(split, number)}.tar", stop)
        return mapped

    def _fetched(self, name: str, stop: Event) -> np.ndarray:
        entry = self.manifest["files"][name]
        return self._cache.map(entry, lambda part: download(f"{self.path}/{name}", entry, part, stop), stop)


def read_remote_manifest(url: str) -> dict[str, Any]:
    """read_manifest of a folder in object storage."""
    text = read_object(f"{url}/{MANIFEST}")
    if text is None:
        raise UserError(f"{url} is not a dataset, it has no {MANIFEST}: check the address, or wait until its packing "
                        "ends")
    return parse_manifest(text, url)


def _map_shard(folder: Path, split: str, number: int) -> np.ndarray:
    with open(folder / f"{shard_name(split, number)}.tar", "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:  # mmap refuses it; an empty view makes read() name the sample
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
