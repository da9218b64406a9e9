"""Photos in a zip, stored or deflated, of any size (zip64): PKWARE's APPNOTE.TXT 6.3.10, section 4.3.

Not the module zipfile: it keeps 0.6 kB per member, 1 GB for the 1.7 million of landmark-recognition-2020.zip, and reads
the whole directory again in each process that opens the zip.
"""
import io
import stat
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple, cast

from preprocess.images.decode import Rejected
from preprocess.sources.entry import DEFLATED, ENCRYPTED, STORED, ArchiveEntry, Damaged

END = struct.Struct("<4s4H2LH")  # 4.3.16
END64_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
MAX_COMMENT = 0xFFFF
LOCKED, UTF8 = 1 << 0, 1 << 11  # bits of flags: 4.4.4
ZIP64 = 1  # tag of the extra field with the numbers that need more than 4 bytes: 4.5.3
IN_ZIP64 = 0xFFFFFFFF  # in a 4-byte field: the number is in the zip64 field
CHUNK = 1 << 20  # bytes


class _Directory(NamedTuple):
    """Where the central directory lies, its bytes, and how many members it should list."""

    start: int
    size: int
    members: int


class _Record(NamedTuple):
    """The fixed part of a member's record in the directory, as CENTRAL unpacks it."""

    signature: bytes
    made_by: int
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc32: int
    packed: int
    size: int
    name_size: int
    extra_size: int
    comment_size: int
    disk: int
    internal: int
    external: int
    offset: int


def is_zip(head: bytes) -> bool:
    """Whether a file begins like a zip, an empty one included."""
    return head[:4] in (b"PK\3\4", b"PK\5\6")


def zip_entries(stream: BinaryIO, size: int) -> Iterator[ArchiveEntry]:
    """The regular files of a zip of `size` bytes, as its directory lists them.

    Reads only the directory, and closes the stream. Raises Damaged if the directory is inconsistent.
    """
    directory = _find_directory(stream, size)
    stream.seek(directory.start)
    members, left = 0, directory.size
    with io.BufferedReader(cast(io.RawIOBase, stream), CHUNK) as records:
        while left > 0:
            record, name, extra = _next_record(records)
            members += 1
            left -= CENTRAL.size + record.name_size + record.extra_size + record.comment_size
            entry = _entry(record, name, extra)
            if entry.offset + LOCAL.size > directory.start:
                raise Damaged(f"has a directory that puts {entry.name} outside of the file")
            if _is_regular(record, entry.name):
                yield entry
    if left or (members - directory.members) % (1 << 16):  # the count is modulo 65,536 in zips of old tools
        raise Damaged(f"has a damaged directory: {members:,} members instead of {directory.members:,}")


def zip_member(header: bytes) -> tuple[str, int]:
    """Name of a member and length of its local header, given the first bytes of both, which may cut the name off.

    Raises Rejected if `header` does not begin with a local header.
    """
    if len(header) < LOCAL.size or header[:4] != b"PK\3\4":
        raise Rejected("unreadable: its zip header is damaged")
    fields = LOCAL.unpack_from(header)
    flags, name_size, extra_size = fields[2], *fields[-2:]
    return _text(header[LOCAL.size:LOCAL.size + name_size], flags), LOCAL.size + name_size + extra_size


def unpack(data: bytes, size: int, method: int, crc32: int) -> bytes:
    """Decompress a member. Raises Rejected unless the file has that size and crc32."""
    if method not in (STORED, DEFLATED):
        raise Rejected(f"unreadable: compression method {method} of a zip is neither stored nor deflated")
    try:
        photo = data if method == STORED else zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    except zlib.error as error:
        raise Rejected(f"unreadable: {error}") from None
    if len(photo) != size or zlib.crc32(photo) != crc32:
        raise Rejected("unreadable: the archive's crc32 does not match")
    return photo


def _find_directory(stream: BinaryIO, size: int) -> _Directory:
    stream.seek(max(0, size - END64_LOCATOR.size - END.size - MAX_COMMENT))
    tail = stream.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < END.size:
        raise Damaged("has no directory at its end, so it is cut off")
    _, disk, _, _, members, length, start, _ = END.unpack_from(tail, at)
    locator = tail[max(0, at - END64_LOCATOR.size):at]
    if locator.startswith(b"PK\6\7") and len(locator) == END64_LOCATOR.size:
        disk, _, _, members, length, start = _end64(stream, END64_LOCATOR.unpack(locator)[2], size)
    if disk:
        raise Damaged("is one part of several", "join them (zip -s 0)")
    if start + length > size:
        raise Damaged("has a damaged end record")
    return _Directory(start, length, members)


def _end64(stream: BinaryIO, offset: int, size: int) -> tuple[Any, ...]:
    """Number of this disk, …, members, bytes of the directory, its start: the last six fields of END64."""
    record = b""
    if offset + END64.size <= size:
        stream.seek(offset)
        record = stream.read(END64.size)
    if not record.startswith(b"PK\6\6"):
        raise Damaged("has a damaged zip64 end record")
    return END64.unpack(record)[4:]


def _next_record(records: BinaryIO) -> tuple[_Record, bytes, bytes]:
    """The directory's next record, its name and its extra fields."""
    head = records.read(CENTRAL.size)
    if len(head) < CENTRAL.size or not head.startswith(b"PK\1\2"):
        raise Damaged("has a damaged directory")
    record = _Record._make(CENTRAL.unpack(head))
    rest = records.read(record.name_size + record.extra_size + record.comment_size)
    return record, rest[:record.name_size], rest[record.name_size:record.name_size + record.extra_size]


def _entry(record: _Record, name: bytes, extra: bytes) -> ArchiveEntry:
    size, packed, offset = values = record.size, record.packed, record.offset
    if IN_ZIP64 in values:
        wide = _zip64_values(extra)
        size, packed, offset = (next(wide) if value == IN_ZIP64 else value for value in values)
    method = ENCRYPTED if record.flags & LOCKED else record.method
    return ArchiveEntry(_text(name, record.flags), offset, size, packed, record.crc32, method)


def _zip64_values(extra: bytes) -> Iterator[int]:
    """The 8-byte numbers of the zip64 field. Raises Damaged when asked for more than it has."""
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, at)
        if tag == ZIP64:
            numbers = extra[at + 4:at + 4 + length]
            yield from (number for number, in struct.iter_unpack("<Q", numbers[:len(numbers) // 8 * 8]))
        at += 4 + length
    raise Damaged("has a damaged zip64 field")


def _is_regular(record: _Record, name: str) -> bool:
    """Whether it is a file: no folder and, in a zip made on Unix, no link or device (4.4.15)."""
    return not name.endswith("/") and stat.S_IFMT(record.external >> 16) in (0, stat.S_IFREG)


def _text(name: bytes, flags: int) -> str:
    return name.decode("utf-8", "surrogateescape") if flags & UTF8 else name.decode("cp437")
