"""Objects of a bucket, whatever the network does: short requests, each tried again with growing pauses."""
import random
import sys
from collections.abc import Callable
from threading import Event
from typing import Any, BinaryIO

from arcshard.console import UserError
from arcshard.urls import S3_PROTOCOLS, filesystem, reaching, reason
from shards.file_entry import Entry
from shards.hashing import HashingStream

BLOCK = 2**24  # bytes a request: what a broken one costs, and what each thread holds
TRIES = 12  # of a request: two minutes or so without a server
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
NOTED = 3  # failures in a row that are worth a line on stderr
COPIES = 2  # whole downloads that may have wrong bytes
JITTER = random.Random()  # of its own, so that a retry changes nobody's random numbers
FINAL = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, ImportError)
FINAL_NAMES = {"NoCredentialsError", "ProfileNotFound"}  # of botocore, an extra that is not imported here


class WrongBytes(UserError):
    """An object that is not the one that was packed."""


class Stopped(UserError):
    """Whoever asked has gone."""


def read_object(url: str, stop: Event) -> bytes | None:
    """A small object's bytes; None: there is none. Raises UserError if they cannot be had."""
    with reaching(url):
        fs, path = _filesystem(url)
        try:
            # s3fs would ask for the size first, to fetch parts side by side
            options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
            return _persist(url, lambda: fs.cat_file(path, **options), stop)
        except (FileNotFoundError, NotADirectoryError):
            return None


def download(url: str, entry: Entry, file: BinaryIO, stop: Event) -> None:
    """Write an object into `file`, hashed on the way.

    Raises UserError if it cannot be had, soon after `stop` is set, and WrongBytes if it is not what `entry` says.
    """
    for _ in range(COPIES):
        file.seek(0)
        stream = HashingStream(file)
        for start in range(0, entry["size"], BLOCK):
            stream.write(_read_range(url, start, min(BLOCK, entry["size"] - start), stop))
        if stream.sha256 == entry["sha256"]:
            return
    raise WrongBytes(f"{url} must have the sha256 that dataset.json says, but has another, in {COPIES} downloads: put "
                     "the packed file there again (python -m shards verify names all that differ)")


def _read_range(url: str, start: int, size: int, stop: Event) -> bytes:
    with reaching(url):
        fs, path = _filesystem(url)

        def ask() -> bytes:
            data = fs.cat_file(path, start=start, end=start + size)
            if len(data) != size:
                raise EOFError(f"{len(data):,} bytes came of the {size:,} from {start:,} on")
            return data

        return _persist(url, ask, stop)


def _persist(url: str, ask: Callable[[], bytes], stop: Event) -> bytes:
    """ask() until it answers, at most TRIES times; the pauses double, and ranks differ in them."""
    for number in range(1, TRIES + 1):
        if stop.is_set():
            raise Stopped(f"{url} is no longer wanted")
        try:
            return ask()
        except Exception as error:  # each protocol's package has its own
            if isinstance(error, FINAL) or type(error).__name__ in FINAL_NAMES:
                raise
            why = reason(error)
        if number == NOTED:
            print(f"{url}: {why}; trying on", file=sys.stderr)
        if number < TRIES:
            stop.wait(min(FIRST_PAUSE * 2 ** (number - 1), LONGEST_PAUSE) * JITTER.uniform(0.5, 1))
    raise UserError(f"{url} must come within {TRIES} tries, but the last one ended with: {why}; see to the server or "
                    "the network, then run the same command again")


def _filesystem(url: str) -> tuple[Any, str]:
    """As filesystem(url), without the tries of s3fs and botocore, which would multiply ours."""
    if url.partition("://")[0] not in S3_PROTOCOLS:
        return filesystem(url)
    fs, path = filesystem(url, config_kwargs={"retries": {"total_max_attempts": 1}})
    fs.retries = 1
    return fs, path
