"""What zips and tars share: names of photos, their checks and hashes, and the entry of a file in an archive."""
import hashlib
import posixpath
from typing import NamedTuple


def clean_name(name: str) -> str | None:
    """The relative path that a name means, without "." and "//"; None if it is absolute, contains ".." or a NUL.

    A "\\" counts as "/": Windows' tools write it into tables and zips. Links are not checked: a link in a user's folder
    is intended, and links in archives are never followed.
    """
    name = name.replace("\\", "/")
    if name.startswith("/") or "\0" in name or ".." in name.split("/"):
        return None
    return posixpath.normpath(name)


def base_name(key: str) -> str:
    """The file name of the photo with that id."""
    return f"{key}.jpg"


def name_hash(name: str) -> int:
    """64-bit hash of a name for the index: blake2b, so that no library version changes it."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


STORED, DEFLATED = 0, 8  # compression methods of a zip: APPNOTE.TXT 4.4.5
TAR = 256  # marks a member of a tar, which has no method
ENCRYPTED = 257  # marks a member that needs a password, whatever its method

# Pillow takes at most 89,478,485 pixels, which are 256 MiB of RGB. Zips can claim far more.
MAX_PHOTO = 1 << 28
TOO_LARGE = f"larger than {MAX_PHOTO >> 20} MiB"


class Damaged(Exception):
    """An archive that cannot be indexed; the message continues after the archive's name: "is cut off"."""

    def __init__(self, fault: str, remedy: str = "fetch it again"):
        super().__init__(f"{fault}: {remedy}")


class ArchiveEntry(NamedTuple):
    """One regular file of an archive: where it lies and how it is stored."""

    name: str
    offset: int
    """Byte where its (first) header begins."""
    size: int
    """Bytes of the file."""
    packed: int
    """Zip: bytes of the compressed file. Tar: bytes from `offset` to the file's end, headers included."""
    crc32: int
    """Checksum of the file; 0 in a tar, which has none."""
    method: int
