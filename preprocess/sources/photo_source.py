"""Where photos come from: any mix of folders, zips and tars, in order."""
import errno
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from arcshard.console import UserError
from arcshard.urls import is_url, read_object, read_range
from preprocess.images.decode import Rejected
from preprocess.sources.entry import ENCRYPTED, MAX_PHOTO, TAR, TOO_LARGE, base_name, clean_name
from preprocess.sources.find import FoundPath, find
from preprocess.sources.index import By, archive_entries, index_archives, look_up, sorted_rows, twins
from preprocess.sources.tar_archive import tar_member
from preprocess.sources.zip_archive import unpack, zip_member

# Folders laid out as Google Landmarks on Kaggle, flat ones, or any that paths describe.

FOLDERS = ("{0}/{1}/{2}/", "train/{0}/{1}/{2}/", "test/{0}/{1}/{2}/", "index/{0}/{1}/{2}/", "")

TELL_APART = "set the table's column path to the right ones"

# Faults of one file. Others (too many open files, a lost network drive) must stop packing.
OF_THE_FILE = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EIO}


class PhotoFolder(NamedTuple):
    """A folder: an absolute path, or a URL."""

    url: str

    def read(self, key: str, path: str | None) -> bytes | None:
        """The file at `path`, or the first <key>.jpg in a/b/c/, train/a/b/c/, test/a/b/c/, index/a/b/c/ or the folder.

        a, b and c are the first three characters of the key. None: there is no such file. Raises Rejected for a file
        that cannot be read, UserError if the folder is gone or has a different <key>.jpg in another of those places.
        Object storage gets a request per name, and none after the first file.
        """
        local = not is_url(self.url)
        read, root = _read_local if local else read_object, posixpath.join(self.url, "")
        names = iter(_names(key, path))
        for name in names:
            data = read(f"{root}{name}")
            if data is not None:
                others = [other for other in names if local and path is None and os.access(f"{root}{other}", os.F_OK)]
                if any(_read_local(f"{root}{other}") != data for other in others):
                    raise UserError(f"{self.url} has different files {base_name(key)} ({', '.join([name, *others])}): "
                                    f"{TELL_APART}")
                return data
        if local and not os.path.isdir(self.url):
            raise UserError(f"{self.url}, the photos' folder, is gone: bring it back and run the same command again")
        return None


def _names(key: str, path: str | None) -> list[str]:
    if path is None:
        folders = FOLDERS if len(key) >= 3 else FOLDERS[-1:]
        return [folder.format(*key) + base_name(key) for folder in folders]
    clean = clean_name(path)
    return [] if clean is None else [path, clean] if "\\" in path else [clean]  # a name on Linux can hold a "\\"


def _read_local(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as f:
            if os.fstat(f.fileno()).st_size > MAX_PHOTO:
                raise Rejected(TOO_LARGE)
            return f.readall()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeEncodeError:  # no file on this system can have such a name
        return None
    except OSError as error:
        if error.errno not in OF_THE_FILE:
            raise
        raise Rejected(f"unreadable: {error.strerror}") from None


# Photos in archives, read without opening the rest.

LOCAL_HEADER = 512  # bytes, more than nearly every zip member's header, so that one read gets header and photo


class ArchiveMember(NamedTuple):
    """Where a photo lies according to an index; for the numbers see entry.ArchiveEntry."""

    archive: str
    offset: int
    size: int
    packed: int
    crc32: int
    method: int

    def read(self, key: str, path: str | None) -> bytes:
        """The photo's bytes. The name in the archive's own header must be `path`, or <key>.jpg in any folder.

        So neither two names with the same hash nor an archive that has changed can give a wrong photo. Raises Rejected
        for a member that cannot be read, UserError if the archive is gone.
        """
        if max(self.size, self.packed) > MAX_PHOTO:
            raise Rejected(TOO_LARGE)
        if self.method == ENCRYPTED:
            raise Rejected("is encrypted: unpack the zip with its password")
        name, data = self._of_tar() if self.method == TAR else self._of_zip()
        clean = clean_name(name) or ""
        if clean != clean_name(path) if path is not None else posixpath.basename(clean) != base_name(key):
            raise Rejected(f"unreadable: the archive has {name!r} where it was indexed")
        return data if self.method == TAR else unpack(data, self.size, self.method, self.crc32)

    def _of_tar(self) -> tuple[str, bytes]:
        return tar_member(read_range(self.archive, self.offset, self.packed), self.size)

    def _of_zip(self) -> tuple[str, bytes]:
        """Name and compressed bytes."""
        data = read_range(self.archive, self.offset, LOCAL_HEADER + self.packed)
        name, start = zip_member(data)
        if start > LOCAL_HEADER:
            data = read_range(self.archive, self.offset, start + self.packed)
            name, start = zip_member(data)
        return name, data[start:start + self.packed]


# Folders and archives together.

Candidates = tuple[PhotoFolder | ArchiveMember, ...]


class PhotoLocation(NamedTuple):
    """Where one photo lies: small and picklable, all that a worker needs."""

    key: str
    path: str | None
    """From the sample table, below a folder or in an archive; None: the photo is found by its key, the id."""
    candidates: Candidates
    """Tried in order. An ArchiveMember comes last: it is known to exist."""

    def read(self) -> bytes:
        """The photo's bytes, not decoded. Raises Rejected with the reason if the photo is to blame.

        Raises UserError or OSError if it is not (a lost connection, a folder that is gone, too many open files): then
        packing must stop instead of leaving photos out.
        """
        for candidate in self.candidates:
            data = candidate.read(self.key, self.path)
            if data is not None:
                return data
        if self.path is not None and ".." in re.split(r"[/\\]", self.path):
            raise Rejected('path has ".."')
        if self.path is not None and re.match(r"[/\\]|[A-Za-z]:[/\\]|\w+://", self.path):
            raise Rejected("path is absolute, and not below a folder of --images")
        raise Rejected("file not found")


class PhotoSource:
    """Folders and indexed archives. It stays in the main process: workers get locations."""

    def __init__(self, found: Sequence[FoundPath], indexes: Sequence[Path]):
        """indexes: an index file (index.py) for each archive among `found`."""
        self.urls = [one.url for one in found]
        self._archives = [one.url for one in found if not one.is_folder]
        self._indexes = indexes
        folders = [(number, PhotoFolder(one.url)) for number, one in enumerate(found) if one.is_folder]
        self._folders = tuple(folder for _, folder in folders)
        self._before: list[Candidates] = [tuple(folder for at, folder in folders if at < number)
                                          for number, one in enumerate(found) if not one.is_folder]

    def locate(self, keys: Sequence[str], paths: Sequence[str] | None) -> list[PhotoLocation]:
        """Where the photos with those ids lie: each in the first folder or archive that has it.

        paths: each photo's path in a folder or archive, or an absolute one below a folder; None: photos are <key>.jpg,
        in any folder of an archive or where PhotoFolder.read looks. A missing photo gets a location too, whose read()
        raises Rejected.
        """
        if paths is None:
            members = self._members("base", [base_name(key) for key in keys])
            return [PhotoLocation(key, None, members.get(i, self._folders)) for i, key in enumerate(keys)]
        members = self._members("name", [clean_name(path) or "" for path in paths])
        return [PhotoLocation(key, path, members[i]) if i in members else self._in_folders(key, path)
                for i, (key, path) in enumerate(zip(keys, paths))]

    def refuse_ambiguous(self, keys: Iterable[str], paths: Iterable[str] | None) -> None:
        """Raise UserError if the archive that gives one of those photos has two different files that it could be.

        Local folders are searched for such files as they are read (PhotoFolder.read).
        """
        if not self._archives:
            return
        by: By = "base" if paths is None else "name"
        names = map(base_name, keys) if paths is None else (clean_name(path) or "" for path in paths)
        found = twins(self._indexes, by, names)
        if len(found):
            first, second = sorted_rows(self._indexes, by)[found[0]:found[0] + 2]
            archive, offsets = self._archives[first["archive"]], (first["offset"], second["offset"])
            both = [entry.name for entry in archive_entries(archive) if entry.offset in offsets]
            base = posixpath.basename(clean_name(both[0]) or "")
            remedy = TELL_APART if by == "base" and len({*both}) > 1 else "make it anew with one of them"
            raise UserError(f"{archive} has two members {base} ({', '.join(both)}; {len(found):,} such): {remedy}")

    def _in_folders(self, key: str, path: str) -> PhotoLocation:
        """An absolute path becomes relative to the folder that it lies below."""
        absolute = posixpath.normpath(path) if path.startswith("/") else path
        for folder in self._folders:
            root = posixpath.join(folder.url, "")
            if absolute.startswith(root):
                return PhotoLocation(key, absolute.removeprefix(root), (folder,))
        return PhotoLocation(key, path, self._folders)

    def _members(self, by: By, names: Sequence[str]) -> dict[int, Candidates]:
        """Candidates for the names that an archive has, by position."""
        if not self._archives:
            return {}
        there, rows = look_up(sorted_rows(self._indexes, by), by, names)
        candidates: dict[int, Candidates] = {}
        for i, (_, _, *numbers, archive) in zip(there.tolist(), rows.tolist()):
            member = ArchiveMember(self._archives[archive], *numbers)
            # An encrypted member must not hide the photo in a later folder.
            folders = self._folders if member.method == ENCRYPTED else self._before[archive]
            candidates[i] = (*folders, member)
        return candidates


def open_source(images: Sequence[str], cache: Path, workers: int) -> PhotoSource:
    """Find folders, zips and tars by local path, fsspec URL or pattern (images_*.tar), and index the archives.

    cache: local folder for the indexes, created if missing; an archive is indexed again only when its size or its time
    (or etag) has changed. workers: processes that index. Raises UserError for what does not exist, is neither folder
    nor archive, is damaged, differs from its publisher's md5, or needs a package that is missing.
    """
    found = find(images)
    return PhotoSource(found, index_archives([one for one in found if not one.is_folder], cache, workers))
