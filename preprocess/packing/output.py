"""Where a dataset is written: a local folder, or a folder of object storage named by any fsspec URL.

Both give the packer the same promises: a file or a finished shard appears whole or not at all, and what lies in
the work folder `.packing` is never taken for a dataset. Object storage has no rename and no lock: a shard there
counts as kept when its part.json, uploaded last, is there, and two packers of one plan write the same bytes.
"""
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol

import fsspec

from arcshard.console import UserError
from preprocess.packing.local_output import LocalOutput
from preprocess.packing.remote_output import RemoteOutput


class Output(Protocol):
    """The folder that becomes a dataset; picklable, so that workers write to it too. Names are relative to it."""

    url: str

    def names(self, folder: str = "") -> set[str]:
        """Names of the files and folders in it or in a folder of it; empty if there is none."""

    def open(self, name: str) -> BinaryIO:
        """A file, to be read. Raises FileNotFoundError."""

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole."""

    def put(self, path: Path, name: str) -> None:
        """Bring a local file in, whole; `path` is gone or stays."""

    def move(self, source: str, name: str) -> None:
        """Rename a file within the folder; nothing happens if `source` was moved before."""

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""

    def remove_tree(self, folder: str) -> None:
        """Delete a folder and all in it, if it is there."""

    def keep(self, folder: Path, name: str) -> None:
        """A finished local folder becomes .packing/name, whole."""

    def kept(self) -> set[str]:
        """Names given to keep()."""

    def scratch(self) -> AbstractContextManager[str]:
        """A local folder for a task that writes aside; gone when the task ends."""

    def local_work(self) -> Path:
        """A local folder that lasts as long as .packing does."""

    def remove_work(self) -> None:
        """Delete .packing and the local work folder."""

    def free_bytes(self) -> int | None:
        """Space left on its disk; None: not limited."""

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder alone, as far as it can be held. Raises UserError if another process holds it."""


def open_output(where: str | Path) -> Output:
    """The output in a local path or an fsspec URL. Raises UserError for a protocol that fsspec lacks."""
    text = str(where)
    if "://" not in text or text.startswith("file://"):
        return LocalOutput(str(Path(text.removeprefix("file://")).absolute()))
    try:
        fsspec.filesystem(text.partition("://")[0])
    except (ImportError, ValueError) as error:
        raise UserError(f"{text} cannot be written to: {error}; s3:// needs pip install 'arcshard[s3]'") from None
    return RemoteOutput(text.rstrip("/"))
