"""Files that appear whole or not at all: written aside, fsynced, renamed."""
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
