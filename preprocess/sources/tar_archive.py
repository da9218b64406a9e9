"""Photos in an uncompressed tar (USTAR, GNU or PAX headers), found by Python's own header parser."""
import io
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from preprocess.normal_form.rejected import Rejected
from preprocess.sources.entry import TAR, Damaged, Entry

PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
CHUNK = 1 << 20  # bytes
# What the parser raises at wild bytes; RecursionError: a thousand extended headers in a row.
UNPARSABLE = (tarfile.TarError, ValueError, OverflowError, RecursionError)
# Kinds of HeaderError that typeshed does not list: a block of zeros, and no block at all.
END_MARK, NOTHING = tarfile.EOFHeaderError, tarfile.EmptyHeaderError  # type: ignore[attr-defined]


class _Headers(tarfile.TarFile):
    """Read with TarInfo.fromtarfile: TarFile.next keeps every member, and takes a damaged header for the end."""

    def next(self) -> None:
        return None


def is_tar(head: bytes) -> bool:
    """Whether a file that begins with these 512 bytes is a tar with at least one member."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def tar_entries(stream: BinaryIO, size: int) -> Iterator[Entry]:
    """The regular files of a tar of `size` bytes, read from its start to its end, without the files' bytes.

    The stream is only read and moved forward. Raises Damaged unless all of it is headers, files and an end mark.
    """
    tar = _Headers(fileobj=stream)
    while True:
        start = tar.offset
        stream.seek(start)
        try:
            member = _next_member(tar)
        except END_MARK:
            break
        except NOTHING:
            raise Damaged("ends without an end mark, so it is cut off") from None
        except UNPARSABLE as error:
            raise Damaged(f"has a damaged header at byte {start:,} ({error})") from None
        if not start < tar.offset <= size:
            raise Damaged(f"ends within its member {member.name}")
        if member.type in PLAIN and not member.issparse():
            packed = member.offset_data + member.size - member.offset
            yield Entry(member.name, member.offset, member.size, packed, 0, TAR)
    while chunk := stream.read(CHUNK):
        if chunk.count(0) < len(chunk):
            raise Damaged(f"holds more behind its end mark at byte {start:,}: it is damaged, or several tars in one")


def tar_member(data: bytes, size: int) -> tuple[str, bytes]:
    """Name and bytes of the member whose headers and file `data` holds. Raises Rejected unless it has `size` bytes."""
    try:
        member = _next_member(_Headers(fileobj=io.BytesIO(data)))
    except UNPARSABLE as error:
        raise Rejected(f"unreadable: its tar header is damaged ({error})") from None
    photo = data[member.offset_data:]
    if not member.size == len(photo) == size:
        raise Rejected("unreadable: the tar is not as it was indexed")
    return member.name, photo


def _next_member(tar: _Headers) -> tarfile.TarInfo:
    member = tarfile.TarInfo.fromtarfile(tar)
    if member.size < 0:  # a header can say so
        raise tarfile.HeaderError("negative size")
    return member
