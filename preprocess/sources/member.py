"""One photo in an archive: read its bytes without opening the rest."""
import posixpath
from typing import NamedTuple

from preprocess.images.decode import Rejected
from preprocess.sources.archive import tar_member
from preprocess.sources.entry import MAX_PHOTO, TAR, TOO_LARGE, base_name, clean_name
from preprocess.sources.urls import read_range
from preprocess.sources.zip_archive import unpack, zip_member

LOCAL_HEADER = 512  # bytes that hold nearly every zip member's header, so that one read gets header and photo


class Member(NamedTuple):
    """Where an index says that a photo lies; see entry.Entry for the numbers."""

    archive: str
    offset: int
    size: int
    packed: int
    crc32: int
    method: int

    def read(self, key: str, path: str | None) -> bytes:
        """The photo's bytes; the archive's own header must call it `path`, or <key>.jpg in any folder.

        So neither two names with one hash nor an archive that has changed can give a wrong photo. Raises Rejected
        for a member that cannot be read, UserError if the archive is gone.
        """
        if max(self.size, self.packed) > MAX_PHOTO:
            raise Rejected(TOO_LARGE)
        name, data = self._of_tar() if self.method == TAR else self._of_zip()
        clean = clean_name(name) or ""
        if clean != path if path is not None else posixpath.basename(clean) != base_name(key):
            raise Rejected(f"unreadable: the archive has {name!r} where it was indexed")
        return data if self.method == TAR else unpack(data, self.size, self.method, self.crc32)

    def _of_tar(self) -> tuple[str, bytes]:
        return tar_member(read_range(self.archive, self.offset, self.packed), self.size)

    def _of_zip(self) -> tuple[str, bytes]:
        """Name and packed bytes."""
        data = read_range(self.archive, self.offset, LOCAL_HEADER + self.packed)
        name, start = zip_member(data)
        if start > LOCAL_HEADER:
            data = read_range(self.archive, self.offset, start + self.packed)
            name, start = zip_member(data)
        return name, data[start:start + self.packed]
