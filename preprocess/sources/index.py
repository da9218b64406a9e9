"""The index of an archive: 40 bytes per photo in a .npy file of the cache, made once by one task.

The file's name contains a hash of the archive's url and stamp, so an existing file is complete and up to date. Tasks
run in processes on this machine, whichever cluster packs: the cache is a local folder.
"""
import hashlib
import posixpath
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from arcshard.console import UserError, progress
from arcshard.untrusted import read_array
from arcshard.urls import filesystem, reaching
from preprocess.engine import Engine, run_tasks
from preprocess.images.formats import PHOTO_ENDINGS
from preprocess.sources.entry import ENCRYPTED, TAR, ArchiveEntry, Damaged, clean_name, name_hash
from preprocess.sources.find import FoundPath
from preprocess.sources.tar_archive import checked_tar_entries, is_tar
from preprocess.sources.zip_archive import is_zip, zip_entries
from shards.rows import CHUNK, RowFile, new_rows, open_rows

# Hashes of the file name and of the whole name, the numbers of an ArchiveEntry (a size of 4 GiB or more as 4 GiB - 1:
# no photo is that large), and the archive's number among several.
ROW = np.dtype([("base", "<u8"), ("name", "<u8"), ("offset", "<u8"), ("size", "<u4"), ("packed", "<u4"),
                ("crc32", "<u4"), ("method", "<u2"), ("archive", "<u2")])
PACKED_ROW = struct.Struct("<3Q3I2H")
MAX_SIZE = (1 << 32) - 1
MAX_ARCHIVES = 1 << 16
VERSION = 2  # of what an index holds; 1 had no encrypted members, and kept "\\" in names


def index_archives(archives: Sequence[FoundPath], cache: Path, workers: int) -> list[Path]:
    """The archives' index files (ROW, in the archive's order; archive: 0); those that are missing are made.

    cache: local folder, created if missing. workers: processes, one per archive. Raises UserError for an archive that
    cannot be indexed; the others stay indexed.
    """
    if len(archives) > MAX_ARCHIVES:
        raise UserError(f"{len(archives):,} archives are too many for --images (at most {MAX_ARCHIVES:,}): join some")
    paths = [cache / f"{digest(archive.url)}-{digest(f'{VERSION} {archive.stamp}')}.npy" for archive in archives]
    missing = {path: archive.url for path, archive in zip(paths, archives) if not path.exists()}
    if missing:
        cache.mkdir(parents=True, exist_ok=True)
        _make(missing, workers)
    return paths


def _make(missing: dict[Path, str], workers: int) -> None:
    engine = Engine(min(workers, len(missing)))
    with progress(total=len(missing), unit="archive", what="index") as bar:
        for note in run_tasks(engine, _index, lambda: [task for task in missing.items() if not task[0].exists()]):
            bar.update()
            if note:
                bar.write(note, file=sys.stderr)


def digest(text: str) -> str:
    """16 hex digits for a file's name."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


NESTED = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
BATCH = 4096  # members whose rows are written at a time


def _index(task: tuple[Path, str]) -> str:
    """Write the index file of the archive with that url; returns a note for the user, "" if there is none.

    Raises UserError if other archives are in it instead of photos.
    """
    path, url = task
    entries, nested, has_photos = archive_entries(url), "", False
    with new_rows(path, ROW) as append:
        while batch := list(islice(entries, BATCH)):
            append(np.frombuffer(b"".join(map(_row, batch)), ROW))
            names = [entry.name.lower() for entry in batch]
            nested = nested or next((entry.name for entry, name in zip(batch, names) if name.endswith(NESTED)), "")
            has_photos = has_photos or any(posixpath.splitext(name)[1] in PHOTO_ENDINGS for name in names)
        if nested and not has_photos:
            raise UserError(f"{url} holds {nested} instead of photos: unpack it, and give --images what is in it")
    for stale in set(path.parent.glob(f"{digest(url)}-*.npy")) - {path}:
        stale.unlink(missing_ok=True)
    return f"{url} also holds {nested}, in which no photo is looked for: unpack it if it has some" if nested else ""


def _row(entry: ArchiveEntry) -> bytes:
    """The entry's PACKED_ROW; no bytes for a name that leaves the folder."""
    name = clean_name(entry.name)
    if name is None:
        return b""
    sizes = min(entry.size, MAX_SIZE), min(entry.packed, MAX_SIZE)
    base = name.rpartition("/")[2]
    return PACKED_ROW.pack(name_hash(base), name_hash(name), entry.offset, *sizes, entry.crc32, entry.method, 0)


# An archive's first bytes tell whether it is a zip or a tar.

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd",
              b"7z\xbc\xaf": "7-Zip", b"Rar!": "RAR"}  # by first bytes


def archive_entries(url: str) -> Iterator[ArchiveEntry]:
    """The regular files of a zip or tar, with unchanged names. Raises UserError if it is neither, or damaged.

    Of a zip the directory is read, of a local tar the headers, or all of it if its md5 lies beside it; a remote tar is
    read whole, since a request takes as long as some megabytes do.
    """
    with reaching(url):
        try:
            yield from _entries(url)
        except Damaged as error:
            raise UserError(f"{url} {error}") from None


def _entries(url: str) -> Iterator[ArchiveEntry]:
    fs, path = filesystem(url)
    with fs.open(path, "rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        head = stream.read(512)
        stream.seek(0)
        if is_zip(head):
            yield from zip_entries(stream, size)
        elif is_tar(head):
            yield from checked_tar_entries(url, stream, size)
        else:
            raise _refusal(head)


def _refusal(head: bytes) -> Damaged:
    for magic, name in COMPRESSED.items():
        if head.startswith(magic):
            return Damaged(f"is compressed with {name}, which has no random access", "decompress it first")
    return Damaged("is neither a whole zip nor an uncompressed tar", "check --images")


# Names are looked up in all archives at once, in one sorted, memory-mapped table of all rows. pandas.merge would need
# the table in memory: about 200 MB for 4.1 M photos.

By = Literal["base", "name"]
ROWS_PER_SLICE = 1 << 19  # rows sorted at a time: at most 20 MB, and as much again


def sorted_rows(indexes: Sequence[Path], by: By) -> np.ndarray:
    """Memory-mapped ROW of all indexes, sorted by the hash `by`; rows of one hash in the order of the archives, but
    encrypted members after others, so that they do not hide a photo.

    Memory does not grow with the number of rows, but mapped pages count as the process's memory.
    """
    return read_array(_open(_sorted_file(indexes, by)).path, ROW, mmap=True).view(np.ndarray)


def _sorted_file(indexes: Sequence[Path], by: By) -> Path:
    """The file of sorted_rows, beside the indexes; made if missing."""
    path = indexes[0].with_name(f"by-{by}-{digest(' '.join(index.name for index in indexes))}.npy")
    if not path.exists():
        _write(path, indexes, by)
        for stale in set(path.parent.glob(f"by-{by}-*.npy")) - {path}:
            stale.unlink(missing_ok=True)
    return path


def look_up(rows: np.ndarray, by: By, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the names that were found, int64 (M,), and the first row of each, ROW (M,). rows: sorted_rows."""
    hashes = _hashes(names)
    at = np.searchsorted(rows[by], hashes)
    there = np.flatnonzero(at < len(rows))
    there = there[rows[by][at[there]] == hashes[there]]
    return there, rows[at[there]]


def twins(indexes: Sequence[Path], by: By, names: Iterable[str]) -> np.ndarray:
    """Different files of one archive with the same name, one of `names`, where that archive is the first with it.

    Returns positions in sorted_rows, int64 (N,), of rows whose next row is the other file. Members of a zip with equal
    size and crc32 are one photo; a tar has no checksum.
    """
    at = np.concatenate([np.empty(0, np.int64), *_twins(indexes, by)])
    if len(at):  # else the names need not be hashed, which takes 2 s for 1.6 million
        rows, hashes = sorted_rows(indexes, by), np.sort(_hashes(names))
        found = rows[by][at]
        at = at[np.searchsorted(hashes, found) < np.searchsorted(hashes, found, "right")]
        at = at[rows["archive"][np.searchsorted(rows[by], rows[by][at])] == rows["archive"][at]]
    return at


def _twins(indexes: Sequence[Path], by: By) -> Iterator[np.ndarray]:
    table = _open(_sorted_file(indexes, by))
    for first in range(0, table.rows, CHUNK):
        rows = table.read(first, CHUNK + 1)
        one, two = rows[:-1], rows[1:]
        same = (one[by] == two[by]) & (one["archive"] == two["archive"])
        differ = (one["size"] != two["size"]) | (one["crc32"] != two["crc32"]) | (one["method"] == TAR)
        yield first + np.flatnonzero(same & differ)


def _hashes(names: Iterable[str]) -> np.ndarray:
    return np.fromiter(map(name_hash, names), np.uint64)


def _open(path: Path) -> RowFile:
    try:
        return open_rows(path, ROW)
    except ValueError as error:
        raise UserError(f"{path} {error}: delete it, and the archive is indexed again") from None


def _write(path: Path, indexes: Sequence[Path], by: By) -> None:
    total = sum(_open(index).rows for index in indexes)
    bits = 1 + (total // ROWS_PER_SLICE).bit_length()  # the hashes' first bits cut the rows into equal slices
    with new_rows(path, ROW) as append:
        for first_bits in range(1 << bits):
            rows = _slice(indexes, by, first_bits, bits)
            append(rows[np.lexsort((rows["method"] == ENCRYPTED, rows[by]))])


def _slice(indexes: Sequence[Path], by: By, first_bits: int, bits: int) -> np.ndarray:
    """The rows whose hash begins with `first_bits`, with the numbers of their archives."""
    found = [np.empty(0, ROW)]
    for number, index in enumerate(indexes):
        for rows in _open(index).chunks():
            chosen = rows[rows[by] >> np.uint64(64 - bits) == first_bits]
            chosen["archive"] = number
            found.append(chosen)
    return np.concatenate(found)
