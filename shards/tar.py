"""Read a tar block by block, and report everything that a shard must not hold.

tarfile would hide what matters here: headers of the PAX and GNU formats, bytes between members, a missing end.
"""
import re
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from shards.entry import HashingStream
from shards.format import KEY_PATTERN, KEY_RULE, TAR_BLOCK

MEMBER = re.compile(rf"({KEY_PATTERN})\.(jpg|cls)")
MAX_SIZE = 2**31 - 1  # bytes: the index counts a photo's in int32
CHUNK = 2**20

# webdataset.ShardWriter 1.0.2 puts a PAX header with the mtime's fraction before each member; DALI 2.4 reads such tars
# right, with and without .idx (measured). It reads a PAX name or size silently wrong.
HARMLESS_PAX = {b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname"}

KINDS = {tarfile.AREGTYPE: "a file in pre-POSIX format", tarfile.LNKTYPE: "a link",
         tarfile.SYMTYPE: "a link", tarfile.DIRTYPE: "a folder", tarfile.XGLTYPE: "a global PAX header",
         tarfile.GNUTYPE_LONGNAME: "a long name in GNU format", tarfile.GNUTYPE_LONGLINK: "a long link in GNU format",
         tarfile.GNUTYPE_SPARSE: "a sparse file"}


class TarMember(NamedTuple):
    """A photo (extension jpg) or label (cls): its key, its bytes, and where they begin in the tar."""

    key: str
    extension: str
    offset: int
    data: bytes

    @property
    def name(self) -> str:
        """As the tar spells it."""
        return f"{self.key}.{self.extension}"

    def fault(self, text: str) -> "TarFault":
        """The fault that the member `text`, as in "has no label"."""
        return TarFault(self.offset - TAR_BLOCK, f"member {self.name} {text}")


class TarFault(NamedTuple):
    """Something that a shard must not hold, and where its header begins in the tar."""

    offset: int
    text: str


def members(tar: HashingStream) -> Iterator[TarMember | TarFault]:
    """All members and faults in the order of the tar, which is read to its end, one member at a time.

    After a damaged header, reading continues at the next valid one.
    """
    lost = False
    while len(block := tar.read(TAR_BLOCK)) == TAR_BLOCK:
        offset = tar.size - TAR_BLOCK
        if not any(block):
            yield from _end_faults(tar)
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except tarfile.HeaderError as error:
            if not lost:
                yield TarFault(offset, f"a damaged tar header ({error})")
            lost = True
        else:
            lost = False
            yield from _content(tar, header, offset)
    yield TarFault(tar.size, "truncated: a tar ends with two blocks of zeros")


def _content(tar: HashingStream, header: tarfile.TarInfo, offset: int) -> Iterator[TarMember | TarFault]:
    """Read what follows a header: the member, unless the tar ends within it, or its fault."""
    name = MEMBER.fullmatch(header.name)
    if not 0 <= header.size <= MAX_SIZE:
        yield TarFault(offset, f"member {header.name!r} has {header.size} bytes, not 0 to {MAX_SIZE}")
        _skip(tar, header.size)
    elif header.type == tarfile.XHDTYPE:
        yield from _pax_faults(offset, tar.read(_padded(header.size))[:header.size])
    elif header.type != tarfile.REGTYPE:
        kind = KINDS.get(header.type, f"of type {header.type!r}")
        yield TarFault(offset, f"member {header.name!r} is {kind}, not a plain file")
        _skip(tar, header.size)
    elif name is None:
        yield TarFault(offset, f"member {header.name!r} is not KEY.jpg or KEY.cls with a KEY of {KEY_RULE}")
        _skip(tar, header.size)
    else:
        data = tar.read(_padded(header.size))
        if len(data) == _padded(header.size):
            yield TarMember(name[1], name[2], offset + TAR_BLOCK, data[:header.size])


def _pax_faults(offset: int, content: bytes) -> Iterator[TarFault]:
    try:
        odd = {*_pax_keywords(content)} - HARMLESS_PAX
    except ValueError:
        yield TarFault(offset, "a damaged PAX header")
        return
    if odd:
        words = b", ".join(sorted(odd)).decode("utf-8", "backslashreplace")
        yield TarFault(offset, f"a PAX header with {words[:60]!r}, which DALI reads wrong, instead of plain ustar")


def _pax_keywords(content: bytes) -> Iterator[bytes]:
    """Keywords of the records `LENGTH KEYWORD=VALUE\\n` (POSIX pax, Extended Header). Raises ValueError for others."""
    while content:
        length = int(content.partition(b" ")[0])
        if not 0 < length <= len(content):
            raise ValueError("a record longer than its header")
        yield content[:length].partition(b" ")[2].partition(b"=")[0]
        content = content[length:]


def _end_faults(tar: HashingStream) -> Iterator[TarFault]:
    """Read what follows the first block of zeros, which must be zeros, one block at least."""
    start = tar.size - TAR_BLOCK
    more = False
    while chunk := tar.read(CHUNK):
        more = more or any(chunk)
    if more:
        yield TarFault(start, "data behind the block of zeros that ends the tar")
    elif tar.size - start < 2 * TAR_BLOCK:
        yield TarFault(start, "truncated: a tar ends with two blocks of zeros")


def _skip(tar: HashingStream, size: int) -> None:
    todo = _padded(size)
    while todo > 0 and (chunk := tar.read(min(todo, CHUNK))):
        todo -= len(chunk)


def _padded(size: int) -> int:
    """Bytes that `size` bytes of content take in a tar: whole blocks."""
    return -(-size // TAR_BLOCK) * TAR_BLOCK
