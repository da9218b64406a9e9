"""Find the folders and files that the user named by local paths, URLs of fsspec and patterns."""
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
