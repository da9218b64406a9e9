"""Files and objects by path or URL of fsspec: open the file system, read with retries, one sentence for what fails.

A URL here is a string: an absolute path if it begins with "/", else protocol://… .
"""
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from arcshard.console import UserError, expand_home
from arcshard.retry import Failure, retry

S3_PROTOCOLS = ("s3", "s3a")


def is_url(where: str | Path) -> bool:
    """Whether it names a place by protocol://… ."""
    return "://" in str(where)


def filesystem(url: str, **options: Any) -> tuple[AbstractFileSystem, str]:
    """fsspec's file system for a URL or path, and the path within it; options are those of its protocol.

    Raises UserError for an unknown protocol, and if a package is missing.
    """
    if not is_url(url):
        return LocalFileSystem(), os.path.abspath(expand_home(url))
    protocol = url.partition("://")[0]
    try:
        return fsspec.url_to_fs(url, **options)
    except ImportError as error:
        remedy = "pip install 'arcshard[s3]'" if protocol in S3_PROTOCOLS else error
        raise UserError(f"{url} needs a package for {protocol}://, which is not installed: {remedy}") from None
    except ValueError as error:
        raise UserError(f"{url} has a protocol that fsspec does not know ({error}): check the URL") from None


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what any protocol's packages raise into a UserError that names the URL."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{url} cannot be read ({reason(error)}): check the address, your rights to it and the "
                        "connection, then run the same command again") from error


def reason(error: Exception) -> str:
    """What an exception of any package says, in one line."""
    return str(error).partition("\n")[0] or type(error).__name__


# Bytes, whatever the network does: each request is tried again with growing pauses, local files are read once.

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds: 12 tries take two minutes or so without a server
NOTED = 3  # failures in a row that are worth a line on stderr
JITTER = random.Random()  # of its own, so that a retry changes nobody's random numbers
MISSING = (FileNotFoundError, NotADirectoryError)
FINAL = (*MISSING, IsADirectoryError, PermissionError, ImportError)
FINAL_NAMES = {"NoCredentialsError", "ProfileNotFound"}  # of botocore, an extra that is not imported here


class Stopped(UserError):
    """Whoever asked has gone."""


def read_object(url: str, stop: Event | None = None, missing: tuple[type[Exception], ...] = MISSING) -> bytes | None:
    """The bytes of a file or object; None: there is none.

    Args:
        stop: once set, ends the tries soon.
        missing: exceptions that mean that there is none.

    Raises UserError if it cannot be read, Stopped soon after `stop` is set.
    """
    with reaching(url):
        fs, path = _filesystem(url)
        # s3fs would ask for the size first, to fetch parts side by side: a second request for each object.
        options = {"max_concurrency": 1} if "s3" in fs.protocol else {}
        try:
            return _read(url, lambda: fs.cat_file(path, **options), stop)
        except missing:
            return None


def read_range(url: str, start: int, size: int, stop: Event | None = None, least: int = 0) -> bytes:
    """`size` bytes of a file or object from `start` on, fewer at its end.

    least: fewer bytes than these are a fault of the network. Raises as `read_object` does.
    """
    with reaching(url):
        if not is_url(url):
            with open(url, "rb", buffering=0) as f:
                return os.pread(f.fileno(), size, start)
        fs, path = _filesystem(url)

        def ask() -> bytes:
            data: bytes = fs.cat_file(path, start=start, end=start + size)
            if len(data) < least:
                raise EOFError(f"{len(data):,} bytes came of the {least:,} from {start:,} on")
            return data

        return _read(url, ask, stop)


def _read(url: str, ask: Callable[[], bytes], stop: Event | None) -> bytes:
    """ask() until it answers or `stop` is set; processes differ in their pauses."""
    if not is_url(url):
        return ask()
    stop = stop or Event()

    def pause(failures: int, why: str, seconds: float) -> None:
        if failures == NOTED:
            print(f"{url}: {why}; still trying", file=sys.stderr)
        stop.wait(seconds * JITTER.uniform(0.5, 1))
        _check_wanted(url, stop)

    _check_wanted(url, stop)
    return retry(ask, _failure, pause, what=url, remedy="check the server and the network, then run the same command "
                 "again", first_wait=FIRST_PAUSE, longest_wait=LONGEST_PAUSE)


def _check_wanted(url: str, stop: Event) -> None:
    if stop.is_set():
        raise Stopped(f"{url} is no longer wanted")


def _failure(error: Exception) -> Failure:
    if isinstance(error, FINAL) or type(error).__name__ in FINAL_NAMES:
        raise error
    return Failure(reason(error))


def _filesystem(url: str) -> tuple[Any, str]:
    """As filesystem(url), without the tries of s3fs and botocore, which would multiply ours."""
    if url.partition("://")[0] not in S3_PROTOCOLS:
        return filesystem(url)
    fs, path = filesystem(url, config_kwargs={"retries": {"total_max_attempts": 1}})
    fs.retries = 1
    return fs, path
