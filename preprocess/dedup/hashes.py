"""Hash all photos of a table in parallel; hashes of earlier calls are taken from the store."""
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
from arcshard.untrusted import read_array
from preprocess.engine import Engine, run_tasks
from preprocess.images.decode import Rejected
from preprocess.images.formats import MAX_PIXELS
from preprocess.images.normalize import normalize
from preprocess.sources import PhotoLocation, PhotoSource

# A photo has two hashes: of its bytes, and of its look, the pHash of the library imagehash: whether each of the 8 × 8
# lowest frequencies of the gray photo is above their median. It tolerates another scale, JPEG quality or slightly other
# colors, but no crop and no flip.

METHOD = "blake2b-16, phash-8 of side 64, 1"  # hashes of another method are not reused
SIDE = 64  # pixels; decoding at 1/8 … 1/1 down to it takes 0.5 ms of a 792×545 JPEG, decoding it whole 2.2 ms


class PhotoHash(NamedTuple):
    """The two hashes by which a photo is compared."""

    content: bytes
    """16 bytes, equal only for equal files."""
    look: int
    """64 bits; few of them differ between photos that look alike."""


def hash_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> PhotoHash:
    """Hash an encoded photo. Raises Rejected for what packing with that max_pixels would reject."""
    image = _draft(data, max_pixels) or Image.open(io.BytesIO(
        normalize(data, SIDE, quality=90, max_pixels=max_pixels).data))
    return PhotoHash(hashlib.blake2b(data, digest_size=16).digest(), _look(image))


def check_library() -> None:
    """Raise UserError if imagehash is not installed."""
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise UserError(f"the package {error.name}, which finds near duplicates, is not installed: "
                        "pip install 'arcshard[duplicates]'") from None


def _draft(data: bytes, max_pixels: int) -> Image.Image | None:
    """A JPEG decoded at a small size; None for one that must be rotated, is damaged or large, and for other files."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            image = Image.open(io.BytesIO(data), formats=["JPEG"])
            if image.width * image.height > max_pixels or image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                return None
            image.draft("L", (SIDE, SIDE))
            image.load()
            return image
        except Exception:  # damaged files make Pillow raise nearly any type; normalize says what is wrong
            return None


def _look(image: Image.Image) -> int:
    import imagehash  # an optional extra
    return int.from_bytes(np.packbits(imagehash.phash(image).hash).tobytes())


# The store of hashes: files of a thousand records, each written whole, which later calls reuse.

RECORD_DTYPE = np.dtype([("key", "<u8"), ("content", "S16"), ("look", "<u8")])
"""key: see `photo_key`; content, look: see PhotoHash. 32 bytes per photo."""


def photo_key(*words: str) -> int:
    """64-bit key of a photo in its source; in one of 37 million tables of a million photos two photos share a key."""
    return int.from_bytes(hashlib.blake2b("\0".join(words).encode(), digest_size=8).digest())


def save(folder: Path, records: np.ndarray) -> None:
    """Add records, RECORD_DTYPE (N,)."""
    if not len(records):
        return
    name = hashlib.blake2b(records["key"].tobytes(), digest_size=8).hexdigest()
    with whole_file(folder / f"{name}.npy") as f:
        np.save(f, records)


def load(folder: Path) -> np.ndarray:
    """All records, RECORD_DTYPE (N,), sorted by key, each key once."""
    records = np.concatenate([np.empty(0, RECORD_DTYPE), *_chunks(folder)])
    _, first = np.unique(records["key"], return_index=True)
    return records[first]


def _chunks(folder: Path) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("*.npy")):
        try:
            yield read_array(path, RECORD_DTYPE)
        except ValueError as error:
            raise UserError(f"{path} {error}: delete it, and its photos are hashed again") from None


CHUNK = 1024  # photos per task: half a second of work, which a kill loses


class HashedPhotos(NamedTuple):
    """The hashes of a table's photos."""

    records: np.ndarray
    """RECORD_DTYPE (N,), rows as in the table."""
    reasons: dict[int, str]
    """Row -> why that photo could not be hashed; its record is zero."""
    reused: int
    """Number of hashes taken from the store."""


class HashTask(NamedTuple):
    """Rows of the table, with the keys and locations of their photos; those of more than max_pixels are rejected."""

    rows: NDArray[np.int64]
    keys: NDArray[np.uint64]
    locations: list[PhotoLocation]
    max_pixels: int


class HashedChunk(NamedTuple):
    """A finished task: its records, RECORD_DTYPE (N,), and row -> reason for photos that could not be hashed."""

    rows: NDArray[np.int64]
    records: np.ndarray
    reasons: dict[int, str]


def hash_photos(samples: pd.DataFrame, source: PhotoSource, store: Path, engine: Engine,
                max_pixels: int = MAX_PIXELS) -> HashedPhotos:
    """Hash the photos of `samples` (column id and, if it has one, path).

    store: folder of hashes, created if missing. Photos are identified by id, path and the source's urls, not by their
    bytes. A photo that could not be hashed is tried again by the next call. Memory: 33 bytes per photo. Raises
    UserError or OSError if the source cannot be read.
    """
    store.mkdir(parents=True, exist_ok=True)
    records, done = _known(photo_keys(samples, source.urls), load(store))
    reused, reasons = int(done.sum()), dict[int, str]()
    with progress(total=len(done) - reused, unit="photo", what="hash", disable=bool(done.all())) as bar:
        for result in run_tasks(engine, _hash, lambda: _tasks(samples, source, records, done, max_pixels)):
            records[result.rows], done[result.rows] = result.records, True
            reasons |= result.reasons
            save(store, result.records[~np.isin(result.rows, list(result.reasons))])
            bar.update(len(result.rows))
    return HashedPhotos(records, reasons, reused)


def photo_keys(samples: pd.DataFrame, urls: list[str]) -> NDArray[np.uint64]:
    """Keys of a table's photos in the store, uint64 (N,)."""
    words = zip(samples["id"], samples["path"]) if "path" in samples else zip(samples["id"])
    return np.fromiter((photo_key(METHOD, *urls, *own) for own in words), np.uint64, len(samples))


def _known(keys: NDArray[np.uint64], stored: np.ndarray) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """Records of those keys, RECORD_DTYPE (N,), and which of them were stored, bool (N,)."""
    records = np.zeros(len(keys), RECORD_DTYPE)
    records["key"] = keys
    done = np.isin(keys, stored["key"])
    records[done] = stored[np.searchsorted(stored["key"], keys[done])]
    return records, done


def _tasks(samples: pd.DataFrame, source: PhotoSource, records: np.ndarray, done: NDArray[np.bool_],
           max_pixels: int) -> Iterator[HashTask]:
    remaining = np.flatnonzero(~done)
    for start in range(0, len(remaining), CHUNK):
        rows = remaining[start:start + CHUNK]
        photos = samples.iloc[rows]
        paths = photos["path"].tolist() if "path" in photos else None
        yield HashTask(rows, records["key"][rows], source.locate(photos["id"].tolist(), paths), max_pixels)


def _hash(task: HashTask) -> HashedChunk:
    records, reasons = np.zeros(len(task.rows), RECORD_DTYPE), {}
    for number, (row, key, location) in enumerate(zip(task.rows.tolist(), task.keys, task.locations)):
        try:
            records[number] = (key, *hash_photo(location.read(), task.max_pixels))
        except Rejected as reason:
            reasons[row] = str(reason)
    return HashedChunk(task.rows, records, reasons)
