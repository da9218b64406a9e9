"""What the index of an archive keeps of each photo, and what the readers of zips and tars share."""
import hashlib
import posixpath
from typing import NamedTuple

# Names of photos in folders, archives and sample tables: made safe, compared, hashed.


def clean_name(name: str) -> str | None:
    """The relative path that a name means, without "." and "//"; None if it is absolute, climbs with ".." or has a NUL.

    Links are not looked at: a link inside a user's folder is the user's wish, and links in archives are never followed.
    """
    if name.startswith("/") or "\0" in name or ".." in name.split("/"):
        return None
    return posixpath.normpath(name)


def base_name(key: str) -> str:
    """The file name of the photo with that id."""
    return f"{key}.jpg"


def name_hash(name: str) -> int:
    """64 bits that stand for a name in an index: blake2b, so that no library version changes them."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


STORED, DEFLATED = 0, 8  # compression methods of a zip: APPNOTE.TXT 4.4.5
TAR = 256  # stands for a member of a tar, which has no method

# Pillow takes at most 89,478,485 pixels, which are 256 MiB of RGB. Zips can claim far more.
MAX_PHOTO = 1 << 28
TOO_LARGE = f"larger than {MAX_PHOTO >> 20} MiB"


class Damaged(Exception):
    """An archive that cannot be indexed; the message goes on after its name: "is cut off"."""

    def __init__(self, what: str, mend: str = "fetch it again"):
        super().__init__(f"{what}: {mend}")


class ArchiveEntry(NamedTuple):
    """One regular file of an archive: where it lies and how it is stored."""

    name: str
    offset: int
    """Where its (first) header begins."""
    size: int
    """Bytes of the file."""
    packed: int
    """Zip: bytes of the compressed file. Tar: bytes from `offset` to the file's end, headers included."""
    crc32: int
    """Of the file; 0 in a tar, which has none."""
    method: int
