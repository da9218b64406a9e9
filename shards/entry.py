"""The entry of a file in dataset.json: its size and sha256."""
import hashlib
from pathlib import Path
from typing import BinaryIO, TypedDict

from arcshard.files import sha256

OTHER_DIGEST = "its sha256 is not the one it was packed with"


class FileEntry(TypedDict):
    """Size in bytes, and the hex digest of the content."""

    size: int
    sha256: str


def file_entry(path: Path) -> FileEntry:
    """The entry of a file as it is."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def entry_fault(found: FileEntry, packed: FileEntry) -> str | None:
    """How a file differs from the entry that it was packed with; None: not at all."""
    if found["size"] != packed["size"]:
        return f"has {found['size']} bytes, was packed with {packed['size']}"
    return OTHER_DIGEST if found["sha256"] != packed["sha256"] else None


class HashingStream:
    """A binary file that is read or written from its start to its end, so that its entry costs no second reading.

        with open(path, "wb") as f:
            stream = HashingStream(f)
            rows, labels = write_tar(stream, samples)
        stream.entry
    """

    def __init__(self, stream: BinaryIO):
        self._stream, self._digest, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self._pass(data)
        return self._stream.write(data)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the file."""
        data = self._stream.read(size)
        self._pass(data)
        return data

    @property
    def entry(self) -> FileEntry:
        """Size and sha256 of the bytes so far."""
        return {"size": self.size, "sha256": self._digest.hexdigest()}

    def _pass(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
