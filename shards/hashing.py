"""Size and sha256 of what passes through a file, so that nobody needs to read it again."""
import hashlib
from typing import BinaryIO


class HashingStream:
    """A binary file that is read or written from its start to its end.

        with open(path, "wb") as f:
            stream = HashingStream(f)
            rows, labels = write_tar(stream, samples)
        stream.size, stream.sha256
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
    def sha256(self) -> str:
        """Hex digest of the bytes so far."""
        return self._digest.hexdigest()

    def _pass(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)
