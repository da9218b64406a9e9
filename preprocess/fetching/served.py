"""What a server says about a file in its headers, and the record of it beside the bytes downloaded so far."""
import json
import re
from pathlib import Path
from typing import NamedTuple

import requests

from arcshard.files import write_text
from arcshard.untrusted import parse_json

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")  # RFC 9110, section 14.4
LENGTH = re.compile(r"\d{1,18}")


class ServedFile(NamedTuple):
    """Size in bytes, validators (RFC 9110, section 8.8), MD5 and CRC32C in base64; None: unknown."""

    size: int | None
    etag: str | None
    modified: str | None
    md5: str | None
    crc32c: str | None

    def is_same(self, other: "ServedFile | None") -> bool:
        """True only if the headers prove that both have the same bytes."""
        return bool(self.etag or self.modified) and other is not None and self[:3] == other[:3]


def served_file(response: requests.Response) -> ServedFile:
    """Read the headers of a 200 or 206; the hashes are Google Cloud Storage's, of the whole file also in a 206.

    Every file there has a CRC32C; one composed of parts has no MD5.

    Source: https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash
    """
    headers = response.headers
    part = CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    length = LENGTH.fullmatch(headers.get("Content-Length", ""))
    size = part[2] if part else length and length[0]
    hashes = dict(re.findall(r"(md5|crc32c)=([\w+/]+=*)", headers.get("x-goog-hash", "")))
    return ServedFile(int(size) if size is not None else None, headers.get("ETag"), headers.get("Last-Modified"),
                      hashes.get("md5"), hashes.get("crc32c"))


def first_byte(response: requests.Response) -> int:
    """Position in the file of the body's first byte; 0 if the server ignored or refused (416) the Range header."""
    part = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(part[1]) if part else 0


def write_record(path: Path, served: ServedFile) -> None:
    """Write it as JSON, without address or token."""
    write_text(path, json.dumps(served._asdict()) + "\n")


def read_record(path: Path) -> ServedFile | None:
    """What `write_record` wrote; None if there is no such file."""
    try:
        return ServedFile(**parse_json(path.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
