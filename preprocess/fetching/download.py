"""Download a large file without losing progress: NAME.part grows across interruptions until it is complete.

kaggle's own download_file (2.2.4) is not used: it writes under the final name, so half a file looks like a whole one,
and if its Range request is answered by an error page, that replaces the bytes so far (Kaggle/kaggle-cli, pull request
1179).
"""
import base64
import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import requests
from google_crc32c import Checksum

from arcshard.console import UserError, progress
from arcshard.files import sync_folder
from preprocess.fetching.retry import FIRST_WAIT, TRIES, retry_request
from preprocess.fetching.served import ServedFile, first_byte, read_record, served_file, write_record

# An incomplete file: NAME.part has its first bytes, NAME.part.json describes the file they are from.

READ_AT_ONCE = 1 << 20  # bytes read at once
MB = 10**6


class PartFile(NamedTuple):
    """The first bytes of the file that will be `whole`. A kill at any moment leaves bytes with a matching record."""

    whole: Path

    @property
    def bytes(self) -> Path:
        return self.whole.with_name(self.whole.name + ".part")

    @property
    def record(self) -> Path:
        return self.whole.with_name(self.whole.name + ".part.json")

    def size(self) -> int:
        return self.bytes.stat().st_size if self.bytes.exists() else 0

    def known(self) -> ServedFile | None:
        """The file that the bytes are from; None if unknown."""
        return read_record(self.record)

    def start(self, served: ServedFile) -> None:
        """Delete the bytes so far; those to come are from `served`."""
        self.bytes.unlink(missing_ok=True)
        sync_folder(self.whole.parent)  # else a power cut could bring the old bytes back, with the new record
        write_record(self.record, served)

    def finish(self, served: ServedFile) -> None:
        """Check the file and give it its final name, or delete it and raise UserError."""
        fault = self._fault(served)
        if fault:
            self.bytes.unlink()
            self.record.unlink()
            raise UserError(f"{self.whole.name} was damaged on its way ({fault}) and is deleted: run the same command "
                            "again")
        with open(self.bytes, "rb") as f:
            os.fsync(f.fileno())
        os.replace(self.bytes, self.whole)
        sync_folder(self.whole.parent)
        self.record.unlink()

    def _fault(self, served: ServedFile) -> str | None:
        if served.md5 and self._digest(hashlib.md5(usedforsecurity=False), "MD5") != served.md5:
            return "its MD5 differs from the announced one"
        if not served.md5 and served.crc32c and self._digest(Checksum(), "CRC32C") != served.crc32c:
            return "its CRC32C differs from the announced one"
        if self.whole.suffix == ".zip" and not zipfile.is_zipfile(self.bytes):
            return "it has no zip directory at its end"
        return None

    def _digest(self, digest: Any, name: str) -> str:
        """Hash of the bytes on disk, in base64."""
        with open(self.bytes, "rb") as f, progress(total=self.size() // MB, unit="MB", what=f"checking {name}") as bar:
            while chunk := f.read(READ_AT_ONCE):
                digest.update(chunk)
                bar.update(f.tell() // MB - bar.n)
        return base64.b64encode(digest.digest()).decode()


TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 18  # bytes that a broken connection may lose


def download(part: PartFile, ask: Callable[[], requests.PreparedRequest], timeout: float = TIMEOUT, tries: int = TRIES,
             first_wait: float = FIRST_WAIT) -> ServedFile:
    """Get the file that `ask()` requests, resuming if the bytes so far are provably from the same file.

    Every try gets a fresh request, since links expire. Returns the server's description of the file. Raises UserError
    if the disk is too small or all tries failed (the bytes so far are kept), and if the file is not the one announced
    (it is deleted).
    """
    served = retry_request(lambda: _receive(ask(), part, timeout), part.size, tries, first_wait)
    part.finish(served)
    return served


def _receive(request: requests.PreparedRequest, part: PartFile, timeout: float) -> ServedFile:
    """One try: resume, start again, or find that nothing is missing."""
    known, have = part.known(), part.size()
    if known is not None and 0 < have < (known.size or 0):
        with _send(request, timeout, have) as response:
            if first_byte(response) == have and known.is_same(served_file(response)):
                _check_space(part, known)
                return _append(response, part, known)
    with _send(request, timeout) as response:
        served = served_file(response)
        if have == served.size and served.is_same(known):
            return served
        _check_space(part, served)
        if have:
            reason = "does not resume" if served.is_same(known) else "has another file now, or does not say which"
            print(f"{part.whole.name} starts anew after {have / MB:,.1f} MB: the server {reason}", file=sys.stderr)
        part.start(served)
        return _append(response, part, served)


def _send(request: requests.PreparedRequest, timeout: float, start: int = 0) -> requests.Response:
    """Open the file at byte `start`; the body is not read yet. Raises requests.HTTPError but for 416 (no such byte)."""
    request = request.copy()
    request.headers["Accept-Encoding"] = "identity"  # positions and hash are of the bytes as stored
    if start:
        request.headers["Range"] = f"bytes={start}-"  # without If-Range, which Cloud Storage does not document
    with requests.Session() as session:
        settings = session.merge_environment_settings(str(request.url), {}, True, None, None)
        response = session.send(request, timeout=timeout, **settings)
    if response.status_code != 416:
        response.raise_for_status()
    return response


def _append(response: requests.Response, part: PartFile, served: ServedFile) -> ServedFile:
    """Write the body behind the part; raises requests.RequestException if the file ends too early."""
    position = part.size()
    total = served.size // MB if served.size is not None else None
    with open(part.bytes, "ab") as f, progress(total=total, initial=position // MB, unit="MB",
                                               what=part.whole.name) as bar:
        for chunk in response.iter_content(CHUNK):
            f.write(chunk)
            position += len(chunk)
            bar.update(position // MB - bar.n)
    if served.size is not None and position != served.size:
        raise requests.exceptions.ChunkedEncodingError("the file ended too early")
    return served


def _check_space(part: PartFile, served: ServedFile) -> None:
    missing = (served.size or 0) - part.size()
    free = shutil.disk_usage(part.whole.parent).free
    if missing > free:
        raise UserError(f"{part.whole.name} needs {missing / MB:,.0f} MB more, but {part.whole.parent} has "
                        f"{free / MB:,.0f} MB free: make space or choose another --out, and run the same command again")
