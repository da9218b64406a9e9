"""Download a large file so that nothing is lost: NAME.part grows, whatever happens, until it is whole.

kaggle's own download_file (2.2.4) is not used: it writes under the final name, so that half a file looks like a whole
one, and an error page that answers its Range request replaces the bytes that were there (Kaggle/kaggle-cli, pull
request 1179).
"""
import shutil
import sys
from collections.abc import Callable

import requests

from arcshard.console import UserError, progress
from preprocess.fetching.part_file import MB, PartFile
from preprocess.fetching.persist import FIRST_WAIT, TRIES, persist
from preprocess.fetching.served_file import ServedFile, first_byte, served_file

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 18  # bytes that a cut connection may cost


def download(part: PartFile, ask: Callable[[], requests.PreparedRequest], timeout: float = TIMEOUT, tries: int = TRIES,
             first_wait: float = FIRST_WAIT) -> ServedFile:
    """Get the file that `ask()` requests, going on with what is there if that is provably of the same file.

    Every try asks for a fresh request, since links expire. Returns what the server said of the file. Raises UserError
    where the disk is too small or tries run out (what came is kept), and where the bytes are not those that were
    announced (they are deleted).
    """
    served = persist(lambda: _receive(ask(), part, timeout), part.size, tries, first_wait)
    part.finish(served)
    return served


def _receive(request: requests.PreparedRequest, part: PartFile, timeout: float) -> ServedFile:
    """One try: go on, start anew, or find that nothing is missing."""
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
