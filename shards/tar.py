"""Read a tar block by block, and report everything that a shard must not hold.

tarfile would hide what matters here: sparse files, bytes between members, a missing end.
"""
import posixpath
import tarfile
from collections.abc import Container, Iterator
from typing import NamedTuple

from shards.entry import HashingStream
from shards.format import TAR_BLOCK

JPEG = {"jpg", "jpeg", "jpe", "jfif"}
MAX_SIZE = 2**31 - 1  # bytes: the index counts a photo's in int32
CHUNK = 2**20

# What PAX headers say of where the bytes are. Other records are names, times, owners (webdataset writes the fraction of
# a second so) and attributes (macOS).
PLACING_PAX = (b"size", b"GNU.sparse", b"SCHILY.realsize")

KINDS = {tarfile.LNKTYPE: "a link", tarfile.SYMTYPE: "a link", tarfile.XGLTYPE: "a global PAX header",
         tarfile.GNUTYPE_LONGLINK: "a long link in GNU format", tarfile.GNUTYPE_SPARSE: "a sparse file"}


class TarMember(NamedTuple):
    """A file, and where its bytes begin in the tar."""

    name: str
    """As the tar spells it, but for a ./ in front."""
    stem: str
    """What all members of its sample share; see split_name."""
    extension: str
    offset: int
    size: int
    data: bytes
    """Empty unless its extension was asked for."""

    def fault(self, text: str) -> "TarFault":
        """The fault that the member `text`, as in "has no label"."""
        return TarFault(self.offset - TAR_BLOCK, f"member {one_line(self.name)} {text}")


class TarFault(NamedTuple):
    """Something that a shard must not hold, and where its header begins in the tar."""

    offset: int
    text: str


def one_line(name: str) -> str:
    """A name as messages show it, whatever characters it has."""
    return repr(name)[1:-1]


def split_name(name: str) -> tuple[str, str]:
    """Stem and extension of a file as WebDataset separates them: at the first dot of its base name.

    Of several extensions the last one counts, in lower case, and all that mean JPEG are jpg. A hidden file has neither.
    """
    folder, base = posixpath.split(posixpath.normpath(name))
    stem, _, extensions = base.partition(".")
    extension = extensions.rpartition(".")[2].lower()
    return posixpath.join(folder, stem) if stem else "", "jpg" if extension in JPEG else extension


def members(tar: HashingStream, wanted: Container[str], faults: list[TarFault]) -> Iterator[TarMember]:
    """All files but hidden ones, in the order of the tar, which is read to its end, one member at a time.

    wanted: extensions of the members whose bytes are kept. faults: what the tar must not hold is appended. After a
    damaged header, reading continues at the next valid one.
    """
    lost, long_name = False, ""
    while len(block := tar.read(TAR_BLOCK)) == TAR_BLOCK:
        offset = tar.size - TAR_BLOCK
        if not any(block):
            faults += _end_faults(tar)
            return
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "backslashreplace")
        except tarfile.HeaderError as error:
            if not lost:
                faults.append(TarFault(offset, f"a damaged tar header ({error})"))
            lost = True
            continue
        lost = False
        header.name, long_name = long_name or header.name, ""
        if not 0 <= header.size <= MAX_SIZE:
            faults.append(TarFault(offset, f"member {header.name!r} has {header.size} bytes, not 0 to {MAX_SIZE}"))
            _skip(tar, header.size)
        elif header.type == tarfile.XHDTYPE:
            long_name = _pax_name(tar.read(_padded(header.size))[:header.size], offset, faults)
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _text(tar.read(_padded(header.size))[:header.size].rstrip(b"\0"))
        elif header.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            yield from _file(tar, header, wanted)
        else:
            if header.type != tarfile.DIRTYPE:
                kind = KINDS.get(header.type, f"of type {header.type!r}")
                faults.append(TarFault(offset, f"member {header.name!r} is {kind}, not a plain file"))
            _skip(tar, header.size)
    faults.append(TarFault(tar.size, "truncated: a tar ends with two blocks of zeros"))


def _file(tar: HashingStream, header: tarfile.TarInfo, wanted: Container[str]) -> Iterator[TarMember]:
    """The file, unless it is hidden or the tar ends within it."""
    offset, end = tar.size, tar.size + _padded(header.size)
    stem, extension = split_name(header.name)
    data = tar.read(_padded(header.size))[:header.size] if extension in wanted else b""
    _skip(tar, end - tar.size)
    if stem and tar.size == end:
        yield TarMember(posixpath.normpath(header.name), stem, extension, offset, header.size, data)


def _pax_name(content: bytes, offset: int, faults: list[TarFault]) -> str:
    """The name in a PAX header; "" if it has none."""
    try:
        records = dict(_pax_records(content))
    except ValueError:
        faults.append(TarFault(offset, "a damaged PAX header"))
        return ""
    if odd := next((keyword for keyword in records if keyword.startswith(PLACING_PAX)), None):
        faults.append(TarFault(offset, f"a PAX header with {_text(odd)[:60]!r}, of a file that is not stored plainly"))
    return _text(records.get(b"path", b""))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keyword and value of the records `LENGTH KEYWORD=VALUE\\n` (POSIX pax, Extended Header). Raises ValueError."""
    while content:
        length = int(content.partition(b" ")[0])
        if not 0 < length <= len(content):
            raise ValueError("a record longer than its header")
        keyword, _, value = content[:length].partition(b" ")[2].partition(b"=")
        yield keyword, value.removesuffix(b"\n")
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
