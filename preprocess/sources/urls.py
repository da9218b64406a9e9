"""Folders and files by local path or fsspec URL: find what the user named, read bytes of it.

Whatever goes wrong on the way to a remote one is a UserError, never a rejected photo: a lost connection must stop a
packing, not empty it.
"""
import os
from collections.abc import Iterator, Sequence
from glob import has_magic
from typing import Any, NamedTuple

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from arcshard.console import UserError
from arcshard.urls import filesystem, reaching

STAMPS = ("ETag", "etag", "mtime", "LastModified", "updated", "created")  # what says that a file changed, best first


class FoundPath(NamedTuple):
    """A folder or file that exists; stamp: its size and time or etag, another one once the file has changed."""

    url: str
    is_folder: bool
    stamp: str


def find(images: Sequence[str]) -> list[FoundPath]:
    """What the paths, URLs and patterns (photos_*.tar) name: in their order, matches of a pattern sorted by name.

    Raises UserError for what does not exist, cannot be reached, or needs a package that is missing.
    """
    return [found for given in images for found in _find(given)]


def read_file(url: str) -> bytes | None:
    """A file's bytes; None: there is none. Raises UserError if they cannot be had."""
    with reaching(url):
        fs, path = filesystem(url)
        # s3fs would ask for the size first, to fetch parts side by side: a second request for each photo.
        options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        try:
            return fs.cat_file(path, **options)
        except (FileNotFoundError, NotADirectoryError):
            return None


def read_range(url: str, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start` on, fewer where it ends. Raises UserError if they cannot be had."""
    with reaching(url):
        if is_local(url):
            with open(url, "rb", buffering=0) as f:
                return os.pread(f.fileno(), size, start)
        fs, path = filesystem(url)
        return fs.cat_file(path, start=start, end=start + size)


def is_local(url: str) -> bool:
    """Whether it is a path of this machine."""
    return url.startswith("/")


def _find(given: str) -> Iterator[FoundPath]:
    fs, path = filesystem(given)
    with reaching(given):
        fs.invalidate_cache()  # a process that opens twice must see what changed in between
        infos = _infos(fs, path)
    if not infos:
        raise UserError(f"photos come from folders, zips and tars, but {given} does not exist: check --images")
    for name, info in infos.items():
        if info["type"] not in ("directory", "file"):  # a pipe would block for ever
            raise UserError(f"photos come from folders, zips and tars, but {name} is none of these: check --images")
        url = name if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(name)
        yield FoundPath(url, info["type"] == "directory", _stamp(info))


def _infos(fs: AbstractFileSystem, path: str) -> dict[str, dict[str, Any]]:
    try:
        return {path: fs.info(path)}
    except FileNotFoundError:
        found = fs.glob(path, detail=True) if has_magic(path) else {}
    # A local listing says of a link that it is one, not what it leads to; a remote one saves a request for each file.
    local = isinstance(fs, LocalFileSystem)
    return {name: fs.info(name) if local else found[name] for name in sorted(found)}


def _stamp(info: dict[str, Any]) -> str:
    return f"{info['size']} {next((info[name] for name in STAMPS if info.get(name)), '')}"
