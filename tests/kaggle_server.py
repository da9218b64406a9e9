"""A server that speaks what the package kaggle asks, and a storage that fails as it is told."""
import base64
import hashlib
import io
import json
import threading
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import google_crc32c
import numpy as np
import requests

NAME = "landmark-recognition-2020.zip"
TOKEN, KEY, SIGNATURE = "KGAT_secret0token", "secret1key", "secret2signature"
STORAGE = "http://storage.test"


def zip_bytes(seed: int, size: int = 1 << 20) -> bytes:
    """A zip of three stored members of `size` bytes."""
    out, rng = io.BytesIO(), np.random.default_rng(seed)
    with zipfile.ZipFile(out, "w") as z:
        for number in range(3):
            z.writestr(zipfile.ZipInfo(f"train/{number}.jpg"), rng.bytes(size))
    return out.getvalue()


DATA = zip_bytes(0)
TINY = zip_bytes(1, 3000)


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def crc32c(data: bytes) -> str:
    return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


class Kaggle(ThreadingHTTPServer):
    """Kaggle's API and the storage that it redirects to, reached as their proxy; `faults` are the storage's next ones.

    A fault is ("cut", byte), ("stall", byte), ("shift", None), an HTTP status or a (status, Retry-After); "ok" is none.
    """

    daemon_threads, block_on_close = True, False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.data, self.etag, self.modified = DATA, '"v1"', "Wed, 01 Jul 2020 00:00:00 GMT"
        self.ranges, self.sized, self.zipped = True, True, False
        self.hash = f"crc32c={crc32c(DATA)},md5={md5(DATA)}"
        self.passing: deque[int] = deque()  # what the API answers first
        self.expired: deque[int] = deque()  # what the storage first answers to kaggle's own request
        self.api_status, self.token_active, self.api_stalls = 302, True, False
        self.nonsense: deque[bytes] = deque()  # what the API answers first with 200
        self.faults: deque[Any] = deque()
        self.calls: list[tuple[str, dict[str, Any], str]] = []
        self.gets: list[dict[str, Any]] = []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def serve(self, data: bytes, etag: str) -> None:
        self.data, self.etag = data, etag
        self.hash = f"md5={md5(data)}"

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that goes away is no error here."""

    def request(self) -> requests.PreparedRequest:
        return requests.Request("GET", f"{self.url}/{NAME}?X-Goog-Signature={SIGNATURE}").prepare()


class Answer(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, status: int, content: dict[str, Any]) -> None:
        self.answer(status, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def do_POST(self) -> None:
        kaggle, call = self.server, urlsplit(self.path).path.rpartition("/")[2]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kaggle.calls.append((urlsplit(self.path).path, body, self.headers.get("Authorization", "")))
        if kaggle.api_stalls:
            kaggle.release.wait()
        if kaggle.nonsense:
            return self.answer(200, {"Content-Type": "application/json"}, kaggle.nonsense.popleft())
        if call == "IntrospectToken":
            return self.json(200, {"active": kaggle.token_active, "username": "someone"})
        if kaggle.passing:
            return self.answer(kaggle.passing.popleft(), {"Retry-After": "2"})
        if kaggle.api_status != 302:
            code = 403 if kaggle.api_status == 200 else kaggle.api_status
            return self.json(kaggle.api_status, {"code": code, "message": f"no, {TOKEN}"})
        name = body.get("fileName", NAME) + (".zip" if kaggle.zipped else "")
        self.answer(302, {"Location": f"{STORAGE}/{name}?X-Goog-Signature={SIGNATURE}"})

    def do_GET(self) -> None:
        kaggle = self.server
        if self.headers["Accept-Encoding"] != "identity":  # kaggle's own: it is closed without being read
            status = kaggle.expired.popleft() if kaggle.expired else 200
            return self.answer(status, {"Content-Length": str(len(kaggle.data))}, kaggle.data[:100])
        kaggle.gets.append(dict(self.headers))
        fault = kaggle.faults.popleft() if kaggle.faults else "ok"
        if isinstance(fault, int):
            fault = (fault, None)
        if isinstance(fault[0], int):
            headers = {} if fault[1] is None else {"Retry-After": str(fault[1])}
            return self.answer(fault[0], {**headers, "ETag": kaggle.etag}, b"<html>an error page</html>" * 40)
        self.file(*(fault if fault != "ok" else ("ok", None)))

    def file(self, fault: str, at: int | None) -> None:
        kaggle, wish = self.server, self.headers.get("Range")
        start = int(wish[6:-1]) if wish and kaggle.ranges else 0
        if start >= len(kaggle.data):
            return self.answer(416, {"Content-Range": f"bytes */{len(kaggle.data)}"})
        if fault == "shift":
            start //= 2
        body = kaggle.data[start:]
        headers = {"ETag": kaggle.etag, "Last-Modified": kaggle.modified, "x-goog-hash": kaggle.hash}
        if kaggle.sized:
            headers["Content-Length"] = str(len(body))
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(kaggle.data) - 1}/{len(kaggle.data)}"
        headers = {name: value for name, value in headers.items() if value}
        self.answer(206 if start else 200, headers, body[:at and max(at - start, 0)])
        if fault == "stall":
            self.wfile.flush()
            kaggle.release.wait()


@contextmanager
def running() -> Iterator[Kaggle]:
    """A server on a free port of this machine."""
    server = Kaggle()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
