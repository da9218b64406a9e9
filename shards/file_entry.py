"""What dataset.json says of each other file: its size and sha256."""
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from arcshard.files import sha256


class Entry(TypedDict):
    """Size in bytes, and the hex digest of the content."""

    size: int
    sha256: str


def file_entry(path: Path) -> Entry:
    """The entry of a file as it is."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def entry_faults(name: str, found: Entry, packed: Entry) -> Iterator[str]:
    """At most one sentence on how the file `name` differs from the entry that it was packed with."""
    if found["size"] != packed["size"]:
        yield f"{name}: has {found['size']} bytes, was packed with {packed['size']}"
    elif found["sha256"] != packed["sha256"]:
        yield f"{name}: its sha256 is not the one it was packed with"
