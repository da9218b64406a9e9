"""The index of an archive: 40 bytes a photo in a .npy file of the cache, made once by one task.

A file's name holds the archive's url and stamp, so one that is there is whole and right. Tasks run in processes of
this machine, whatever cluster packs: the cache is a local folder.
"""
import hashlib
import struct
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from arcshard.console import UserError, progress
from arcshard.files import whole_file
from preprocess.sources.archive import archive_entries
from preprocess.sources.entry import Entry
from preprocess.sources.names import clean_name, name_hash
from preprocess.sources.urls import Found

# Hashes of the file name and of the whole name, the numbers of an Entry (sizes from 4 GiB on as 4 GiB - 1: no photo
# has them), and the archive's number among several.
ROW = np.dtype([("base", "<u8"), ("name", "<u8"), ("offset", "<u8"), ("size", "<u4"), ("packed", "<u4"),
                ("crc32", "<u4"), ("method", "<u2"), ("archive", "<u2")])
PACKED_ROW = struct.Struct("<3Q3I2H")
MAX_SIZE = (1 << 32) - 1
MAX_ARCHIVES = 1 << 16


def index_archives(archives: Sequence[Found], cache: Path, workers: int) -> list[Path]:
    """Index files (ROW, in the archive's order; archive: 0) of those archives, made where they are missing.

    cache: local folder, made if missing. workers: processes; one archive occupies one. Raises UserError for an
    archive that cannot be indexed; the others stay indexed.
    """
    if len(archives) > MAX_ARCHIVES:
        raise UserError(f"--images takes at most {MAX_ARCHIVES:,} archives, not {len(archives):,}: join some of them")
    paths = [cache / f"{digest(archive.url)}-{digest(archive.stamp)}.npy" for archive in archives]
    missing = {path: archive.url for path, archive in zip(paths, archives) if not path.exists()}
    if missing:
        cache.mkdir(parents=True, exist_ok=True)
        _make(missing, workers)
    return paths


def _make(missing: dict[Path, str], workers: int) -> None:
    failures: list[Exception] = []
    jobs = (delayed(_attempt)(url, path) for path, url in takewhile(lambda _: not failures, missing.items()))
    with progress(total=len(missing), unit="archive", what="index") as bar:
        for failure in Parallel(min(workers, len(missing)), backend="loky", return_as="generator")(jobs):
            failures += [failure] if failure else []
            bar.update()
    if failures:
        raise failures[0]


def digest(text: str) -> str:
    """16 hex digits for a file's name."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _attempt(url: str, path: Path) -> Exception | None:
    """Index one archive. An exception is returned: raised, joblib would kill its workers, noisily."""
    try:
        _index(url, path)
    except (UserError, OSError) as error:
        return error
    return None


def _index(url: str, path: Path) -> None:
    rows = bytearray()
    for entry in archive_entries(url):
        rows += _row(entry)
    with whole_file(path) as f:
        np.save(f, np.frombuffer(rows, ROW))
    for stale in set(path.parent.glob(f"{digest(url)}-*.npy")) - {path}:
        stale.unlink(missing_ok=True)


def _row(entry: Entry) -> bytes:
    """Nothing for a name that cannot be trusted."""
    name = clean_name(entry.name)
    if name is None:
        return b""
    sizes = min(entry.size, MAX_SIZE), min(entry.packed, MAX_SIZE)
    base = name.rpartition("/")[2]
    return PACKED_ROW.pack(name_hash(base), name_hash(name), entry.offset, *sizes, entry.crc32, entry.method, 0)
