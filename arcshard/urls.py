"""fsspec's file systems by URL, and one sentence for whatever goes wrong on the way to them.

A URL here is a string: an absolute path if it begins with "/", else protocol://… .
"""
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from arcshard.console import UserError

S3_PROTOCOLS = ("s3", "s3a")


def is_url(where: str | Path) -> bool:
    """Whether it names a place by protocol://… ."""
    return "://" in str(where)


def filesystem(url: str, **options: Any) -> tuple[AbstractFileSystem, str]:
    """fsspec's file system for a URL or path, and the path within it; options are those of its protocol.

    Raises UserError if a package is missing.
    """
    if not is_url(url):
        return LocalFileSystem(), os.path.abspath(url)
    protocol = url.partition("://")[0]
    try:
        return fsspec.url_to_fs(url, **options)
    except ImportError as error:
        mend = "pip install 'arcshard[s3]'" if protocol in S3_PROTOCOLS else error
        raise UserError(f"{url} cannot be read, since a package for {protocol}:// is not installed: {mend}") from None
    except ValueError as error:
        raise UserError(f"{url} has a protocol that fsspec does not know ({error}): check it") from None


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
