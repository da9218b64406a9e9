"""Where photos come from: any mix of folders, zips and tars, in order."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from preprocess.images.decode import Rejected
from preprocess.sources.entry import base_name, clean_name
from preprocess.sources.folder import Folder
from preprocess.sources.index import By, index_archives, look_up, sorted_rows
from preprocess.sources.member import Member
from preprocess.sources.urls import Found, find

Candidates = tuple[Folder | Member, ...]


class Place(NamedTuple):
    """Where one photo lies: small, picklable, all that a worker needs."""

    key: str
    path: str | None
    """What the sample table says; None: the photo is found by its key."""
    candidates: Candidates
    """Asked in order. A Member is the last: it is known to be there."""

    def read(self) -> bytes:
        """The photo's bytes, not decoded. Raises Rejected with the reason if the photo is to blame.

        Raises UserError or OSError if it is not (a lost connection, a folder that is gone, too many open files):
        then nothing may be left out, the packing must stop.
        """
        path = None if self.path is None else clean_name(self.path)
        if self.path is not None and path is None:
            raise Rejected("path leaves the folder")
        for candidate in self.candidates:
            data = candidate.read(self.key, path)
            if data is not None:
                return data
        raise Rejected("file not found")


class PhotoSource:
    """Folders and archives that were found and indexed. It stays in its process: workers get places."""

    def __init__(self, found: Sequence[Found], indexes: Sequence[Path]):
        """indexes: an index file (index.py) for each of those found that is no folder."""
        self.urls = [one.url for one in found]
        self._archives = [one.url for one in found if not one.is_folder]
        self._indexes = indexes
        folders = [(place, Folder(one.url)) for place, one in enumerate(found) if one.is_folder]
        self._folders = tuple(folder for _, folder in folders)
        self._before: list[Candidates] = [tuple(folder for at, folder in folders if at < place)
                                          for place, one in enumerate(found) if not one.is_folder]

    def places(self, keys: Sequence[str], paths: Sequence[str] | None) -> list[Place]:
        """Where the photos with those ids lie. The first folder or archive that has a photo gives it.

        paths: each photo's path in a folder or an archive; None: they are <key>.jpg, in any folder of an archive or
        where Folder.read looks. A photo that is nowhere gets a place too, whose read() says so.
        """
        if paths is None:
            members = self._members("base", [base_name(key) for key in keys])
            return [Place(key, None, members.get(i, self._folders)) for i, key in enumerate(keys)]
        members = self._members("name", [clean_name(path) or "" for path in paths])
        return [Place(key, path, members.get(i, self._folders)) for i, (key, path) in enumerate(zip(keys, paths))]

    def _members(self, by: By, names: Sequence[str]) -> dict[int, Candidates]:
        """Candidates for those names that an archive has, by position."""
        if not self._archives:
            return {}
        there, rows = look_up(sorted_rows(self._indexes, by), by, names)
        return {i: (*self._before[archive], Member(self._archives[archive], *numbers))
                for i, (_, _, *numbers, archive) in zip(there.tolist(), rows.tolist())}


def open_source(images: Sequence[str], cache: Path, workers: int) -> PhotoSource:
    """Find folders, zips and tars by local path, fsspec URL or pattern (images_*.tar), and index the archives.

    cache: local folder for the indexes, made if missing; an archive is indexed again only when its size or its time
    (or etag) has changed. workers: processes that index. Raises UserError for what does not exist, is none of
    these, is damaged, has not its publisher's md5, or needs a package that is missing.
    """
    found = find(images)
    return PhotoSource(found, index_archives([one for one in found if not one.is_folder], cache, workers))
