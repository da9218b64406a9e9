"""Hash all photos of a table once, in parallel; what was hashed before is taken from the store."""
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from arcshard.console import UserError, progress
from preprocess.normal_form.rejected import Rejected
from preprocess.sources import PhotoSource, Place
from preprocess.twins import hash_store
from preprocess.twins.hash_store import RECORD_DTYPE, photo_key
from preprocess.twins.photo_hash import METHOD, hash_photo
from preprocess.workers.engine import Engine, run_tasks

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
    places: list[Place]


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
    records, done = _known(photo_keys(samples, source.urls), hash_store.load(store))
    reused, reasons = int(done.sum()), dict[int, str]()
    with progress(total=len(done) - reused, unit="photo", what="hash", disable=bool(done.all())) as bar:
        for result in run_tasks(engine, _attempt, lambda: _tasks(samples, source, records, done)):
            if isinstance(result, Exception):
                raise result
            records[result.rows], done[result.rows] = result.records, True
            reasons |= result.reasons
            hash_store.save(store, result.records[~np.isin(result.rows, list(result.reasons))])
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
        yield Task(rows, records["key"][rows], source.places(photos["id"].tolist(), paths))


def _attempt(task: Task) -> Done | Exception:
    """Hash the task's photos. An exception is returned: raised, joblib would kill its workers, noisily."""
    try:
        return _hash(task)
    except (UserError, OSError) as error:
        return error


def _hash(task: Task) -> Done:
    records, reasons = np.zeros(len(task.rows), RECORD_DTYPE), {}
    for number, (row, key, place) in enumerate(zip(task.rows.tolist(), task.keys, task.places)):
        try:
            records[number] = (key, *hash_photo(place.read()))
        except Rejected as reason:
            reasons[row] = str(reason)
    return Done(task.rows, records, reasons)
