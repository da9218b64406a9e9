"""Folders and files by local path or fsspec URL: find what the user named, read bytes of it.

A network fault is a UserError, never a rejected photo: a lost connection must stop packing, not leave photos out.
"""
import os
from collections.abc import Iterator, Sequence
from glob import has_magic
from typing import Any, NamedTuple

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from arcshard.console import UserError
from arcshard.urls import filesystem, reaching

STAMPS = ("ETag", "etag", "mtime", "LastModified", "updated", "created")  # what changes with a file, best first


class FoundPath(NamedTuple):
    """A folder or file that exists. stamp: its size and time or etag, which changes with the file."""

    url: str
    is_folder: bool
    stamp: str


def find(images: Sequence[str]) -> list[FoundPath]:
    """The folders and files that paths, URLs and patterns (photos_*.tar) name, in order; matches sorted by name.

    Raises UserError for what does not exist, cannot be reached, or needs a package that is missing.
    """
    return [found for given in images for found in _find(given)]


def read_file(url: str) -> bytes | None:
    """A file's bytes; None: there is no such file. Raises UserError if it cannot be read."""
    with reaching(url):
        fs, path = filesystem(url)
        # s3fs would ask for the size first, to fetch parts side by side: a second request for each photo.
        options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        try:
            return fs.cat_file(path, **options)
        except (FileNotFoundError, NotADirectoryError):
            return None


def read_range(url: str, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start` on, fewer at its end. Raises UserError if they cannot be read."""
    with reaching(url):
        if is_local(url):
            with open(url, "rb", buffering=0) as f:
                return os.pread(f.fileno(), size, start)
        fs, path = filesystem(url)
        return fs.cat_file(path, start=start, end=start + size)


def is_local(url: str) -> bool:
    """Whether it is a path on this machine."""
    return url.startswith("/")


def _find(given: str) -> Iterator[FoundPath]:
    fs, path = filesystem(given)
    with reaching(given):
        fs.invalidate_cache()  # a process that opens a source twice must see what changed in between
        infos = _infos(fs, path)
    if not infos:
        raise UserError(f"{given} does not exist: check --images, which takes folders, zips and tars")
    for name, info in infos.items():
        if info["type"] not in ("directory", "file"):  # a pipe would block for ever
            raise UserError(f"{name} is neither folder, zip nor tar: check --images")
        url = name if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(name)
        yield FoundPath(url, info["type"] == "directory", _stamp(info))


def _infos(fs: AbstractFileSystem, path: str) -> dict[str, dict[str, Any]]:
    try:
        return {path: fs.info(path)}
    except FileNotFoundError:
        found = fs.glob(path, detail=True) if has_magic(path) else {}
    # A local listing shows a link, not its target; a remote one saves a request per file.
    local = isinstance(fs, LocalFileSystem)
    return {name: fs.info(name) if local else found[name] for name in sorted(found)}


def _stamp(info: dict[str, Any]) -> str:
    return f"{info['size']} {next((info[name] for name in STAMPS if info.get(name)), '')}"
