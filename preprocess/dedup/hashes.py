"""Hash all photos of a table once, in parallel; what was hashed before is taken from the store."""
import hashlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ExifTags, Image

from arcshard.console import UserError, progress
from arcshard.files import whole_file
from preprocess.engine import Engine, run_tasks
from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from preprocess.sources import PhotoLocation, PhotoSource

# Two hashes of a photo: of its bytes, and of its look.
#
# The look is the pHash of the library imagehash: signs of the 8 × 8 lowest frequencies of the gray photo against
# their median. What survives it: scale, JPEG quality, small changes of color. What does not: a crop, a flip.

METHOD = "blake2b-16, phash-8 of side 64, 1"  # hashes of another method are not reused
SIDE = 64  # pixels; decoding at 1/8 … 1/1 down to it takes 0.5 ms of a 792×545 JPEG, decoding it whole 2.2 ms


class PhotoHash(NamedTuple):
    """What is compared of a photo."""

    content: bytes
    """16 bytes, equal if and only if the files are."""
    look: int
    """64 bits; of photos that look alike, few differ."""


def hash_photo(data: bytes) -> PhotoHash:
    """Hash an encoded photo. Raises normal_form.Rejected for what packing would reject."""
    image = _draft(data) or Image.open(io.BytesIO(normalize(data, SIDE, quality=90).data))
    return PhotoHash(hashlib.blake2b(data, digest_size=16).digest(), _look(image))


def check_library() -> None:
    """Raise UserError if imagehash is not installed."""
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise UserError(f"near duplicates are found with the package {error.name}, which is not installed: "
                        "pip install 'arcshard[duplicates]'") from None


def _draft(data: bytes) -> Image.Image | None:
    """A JPEG, decoded small; None for one that must be turned or is damaged, and for other files."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = Image.open(io.BytesIO(data), formats=["JPEG"])
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return None
            image.draft("L", (SIDE, SIDE))
            image.load()
            return image
        except Exception:  # damaged files make Pillow raise nearly any type; normalize says what is wrong
            return None


def _look(image: Image.Image) -> int:
    import imagehash  # an optional extra
    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes())


# Hashes of photos on disk: files of a thousand records, each whole, that the same command takes up again.

RECORD_DTYPE = np.dtype([("key", "<u8"), ("content", "S16"), ("look", "<u8")])
"""key: which photo, see `photo_key`; content, look: preprocess.twins.photo_hash.PhotoHash. 32 bytes a photo."""


def photo_key(*words: str) -> int:
    """64 bits that stand for a photo in its place; two of a million photos share them once in 37 million tables."""
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest())


def save(folder: Path, records: np.ndarray) -> None:
    """Add RECORD_DTYPE records (N,)."""
    if not len(records):
        return
    name = hashlib.blake2b(records["key"].tobytes(), digest_size=8).hexdigest()
    with whole_file(folder / f"{name}.npy") as f:
        np.save(f, records)


def load(folder: Path) -> np.ndarray:
    """All records, RECORD_DTYPE (N,), in the order of their keys, each key once."""
    records = np.concatenate([np.empty(0, RECORD_DTYPE), *_chunks(folder)])
    _, first = np.unique(records["key"], return_index=True)
    return records[first]


def _chunks(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.npy")):
        yield np.load(path)


CHUNK = 1024  # photos a task: half a second, which is what a kill loses


class Hashed(NamedTuple):
    """The hashes of a table's photos."""

    records: np.ndarray
    """RECORD_DTYPE (N,), rows as in the table."""
    reasons: dict[int, str]
    """Row -> why that photo could not be hashed; its record is void."""
    reused: int
    """How many hashes were there before."""


class Task(NamedTuple):
    """Rows of the table, which photos they are, and where those lie."""

    rows: NDArray[np.int64]
    keys: NDArray[np.uint64]
    locations: list[PhotoLocation]


class Done(NamedTuple):
    """A task's records, RECORD_DTYPE, and row -> reason of those that could not be hashed."""

    rows: NDArray[np.int64]
    records: np.ndarray
    reasons: dict[int, str]


def hash_photos(samples: pd.DataFrame, source: PhotoSource, store: Path, engine: Engine) -> Hashed:
    """Hash the photos of `samples` (columns id and, where there is one, path).

    store: folder of hashes, made if missing. A photo is known by its id, its path and the source's urls, not by
    its bytes. One that could not be hashed is tried again at the next call. Memory: 33 bytes a photo. Raises
    UserError or OSError if the source cannot be read.
    """
    store.mkdir(parents=True, exist_ok=True)
    records, done = _known(photo_keys(samples, source.urls), load(store))
    reused, reasons = int(done.sum()), dict[int, str]()
    with progress(total=len(done) - reused, unit="photo", what="hash", disable=bool(done.all())) as bar:
        for result in run_tasks(engine, _attempt, lambda: _tasks(samples, source, records, done)):
            if isinstance(result, Exception):
                raise result
            records[result.rows], done[result.rows] = result.records, True
            reasons |= result.reasons
            save(store, result.records[~np.isin(result.rows, list(result.reasons))])
            bar.update(len(result.rows))
    return Hashed(records, reasons, reused)


def photo_keys(samples: pd.DataFrame, urls: list[str]) -> NDArray[np.uint64]:
    """What the store knows the photos of a table by, uint64 (N,)."""
    words = zip(samples["id"], samples["path"]) if "path" in samples else zip(samples["id"])
    return np.fromiter((photo_key(METHOD, *urls, *own) for own in words), np.uint64, len(samples))


def _known(keys: NDArray[np.uint64], stored: np.ndarray) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """Records of those keys, and which of them were stored."""
    records = np.zeros(len(keys), RECORD_DTYPE)
    records["key"] = keys
    done = np.isin(keys, stored["key"])
    records[done] = stored[np.searchsorted(stored["key"], keys[done])]
    return records, done


def _tasks(samples: pd.DataFrame, source: PhotoSource, records: np.ndarray, done: NDArray[np.bool_]) -> Iterator[Task]:
    remaining = np.flatnonzero(~done)
    for start in range(0, len(remaining), CHUNK):
        rows = remaining[start:start + CHUNK]
        photos = samples.iloc[rows]
        paths = photos["path"].tolist() if "path" in photos else None
        yield Task(rows, records["key"][rows], source.locate(photos["id"].tolist(), paths))


def _attempt(task: Task) -> Done | Exception:
    """Hash the task's photos. An exception is returned: raised, joblib would kill its workers, noisily."""
    try:
        return _hash(task)
    except (UserError, OSError) as error:
        return error


def _hash(task: Task) -> Done:
    records, reasons = np.zeros(len(task.rows), RECORD_DTYPE), {}
    for number, (row, key, location) in enumerate(zip(task.rows.tolist(), task.keys, task.locations)):
        try:
            records[number] = (key, *hash_photo(location.read()))
        except Rejected as reason:
            reasons[row] = str(reason)
    return Done(task.rows, records, reasons)
