"""Photos in an uncompressed tar (USTAR, GNU or PAX headers), found by Python's own header parser, md5 checked."""
import hashlib
import io
import posixpath
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from arcshard.console import UserError
from arcshard.urls import MISSING, read_object
from preprocess.images.decode import Rejected
from preprocess.sources.entry import TAR, ArchiveEntry, Damaged

PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
# What the parser raises for damaged bytes; RecursionError: a thousand extended headers in a row.
UNPARSABLE = (tarfile.TarError, ValueError, OverflowError, RecursionError)
# Kinds of HeaderError that typeshed lacks: a block of zeros, and no block at all.
END_MARK, NOTHING = tarfile.EOFHeaderError, tarfile.EmptyHeaderError  # type: ignore[attr-defined]


class _Headers(tarfile.TarFile):
    """For TarInfo.fromtarfile: TarFile.next keeps every member, and takes a damaged header for the end."""

    def next(self) -> None:
        return None


def is_tar(head: bytes) -> bool:
    """Whether a file with these first 512 bytes is a tar with at least one member."""
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def tar_entries(stream: BinaryIO, size: int) -> Iterator[ArchiveEntry]:
    """The regular files of a tar of `size` bytes: reads its headers from start to end, skips the files' bytes.

    The stream is only read and moved forward. Raises Damaged unless the tar is headers, files and an end mark only.
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
            yield ArchiveEntry(member.name, member.offset, member.size, packed, 0, TAR)
    while chunk := stream.read(CHUNK):
        if chunk.count(0) < len(chunk):
            raise Damaged(f"has more data behind its end mark at byte {start:,}, damaged or several tars in one")


def tar_member(data: bytes, size: int) -> tuple[str, bytes]:
    """Name and bytes of the member in `data` (headers and file). Raises Rejected unless the file has `size` bytes."""
    try:
        member = _next_member(_Headers(fileobj=io.BytesIO(data)))
    except UNPARSABLE as error:
        raise Rejected(f"unreadable: its tar header is damaged ({error})") from None
    photo = data[member.offset_data:]
    if not member.size == len(photo) == size:
        raise Rejected("unreadable: the tar has changed since it was indexed")
    return member.name, photo


def _next_member(tar: _Headers) -> tarfile.TarInfo:
    member = tarfile.TarInfo.fromtarfile(tar)
    if member.size < 0:  # a header can say so
        raise tarfile.HeaderError("negative size")
    return member


# Where to look for the md5 of <folder>/images_000.tar: beside it, and as in Google's bucket (train/images_000.tar,
# md5sum/train/md5.images_000.txt).
MD5_FILES = ("{folder}/md5.{stem}.txt", "{folder}/md5sum/md5.{stem}.txt", "{parent}/md5sum/{name}/md5.{stem}.txt")
CHUNK = 1 << 20  # bytes


def checked_tar_entries(url: str, stream: BinaryIO, size: int) -> Iterator[ArchiveEntry]:
    expected = _published_md5(url)
    if expected is None:
        yield from tar_entries(stream, size)
        return
    digested = _Digested(stream)
    yield from tar_entries(cast(BinaryIO, digested), size)
    if digested.md5.hexdigest() != expected:
        raise Damaged(f"has the md5 {digested.md5.hexdigest()} instead of its publisher's {expected}")


class _Digested:
    """A stream that is only read and moved forward, with the md5 of everything passed."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.md5, self.tell = stream, hashlib.md5(usedforsecurity=False), stream.tell

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.md5.update(data)
        return data

    def seek(self, offset: int) -> None:
        while offset > self.tell() and self.read(min(offset - self.tell(), CHUNK)):
            pass


def _published_md5(url: str) -> str | None:
    """The publisher's md5 of this tar; None if there is no file with it."""
    folder, file_name = posixpath.split(url)
    parent, name = posixpath.split(folder)
    stem = file_name.removesuffix(".tar")
    for pattern in MD5_FILES:
        md5_url = pattern.format(folder=folder, parent=parent, name=name, stem=stem)
        text = read_object(md5_url, missing=(*MISSING, PermissionError))  # 403: missing, in a bucket without listing
        if text is None:
            continue
        line = re.search(rf"^([0-9a-f]{{32}}) [ *](.*/)?{re.escape(file_name)}\s*$", text.decode("latin-1"), re.M)
        if line is None:
            raise UserError(f"{md5_url} lacks the line '<md5>  {file_name}': fetch it again")
        return line[1]
    return None
