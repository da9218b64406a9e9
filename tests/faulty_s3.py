"""An S3 protocol server on loopback with a front that can fail: moto behind a proxy that spoils what a test asks for.

It passes no checksums on, as older stores have none: botocore would find what ours is to find.
"""
import http.client
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pytest
from fsspec import AbstractFileSystem
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET = "shards"  # other tests of this process have servers of their own, but moto keeps one state for all
CODES = {403: "AccessDenied", 404: "NoSuchKey", 503: "SlowDown"}
HOP = {"content-length", "connection", "transfer-encoding", "date", "server"}


class Front(ThreadingHTTPServer):
    """What clients talk to.

    faults: what befalls the next GETs of objects whose name contains `target`; the last one for ever if `lasting`.
        status      that answer, with S3's XML
        "cut"       the connection ends in the middle of the body
        "short"     a whole answer of half the bytes
        "wrong"     one byte differs
        "drop"      the connection ends before an answer
        "stall"     no answer until release is set
    """

    daemon_threads, block_on_close = True, False

    def __init__(self, behind: tuple[str, int]):
        super().__init__(("127.0.0.1", 0), Answer)
        self.behind, self.url = behind, f"http://127.0.0.1:{self.server_port}"
        self.gets: Counter[str] = Counter()
        self.release = threading.Event()
        self.mend()

    def spoil(self, target: str, *faults: str | int, lasting: bool = False) -> None:
        self.target, self.faults, self.lasting = target, deque(faults), lasting

    def mend(self) -> None:
        """No faults any more, and nothing counted."""
        self.spoil("")
        self.release.set()
        self.release = threading.Event()
        self.gets.clear()

    def next_fault(self, name: str) -> str | int | None:
        if not self.faults or self.target not in name:
            return None
        return self.faults[0] if self.lasting and len(self.faults) == 1 else self.faults.popleft()

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that goes away is no error here."""


class Answer(BaseHTTPRequestHandler):
    server: Front
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        self.server.gets[name] += 1
        fault = self.server.next_fault(name)
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "stall":
            self.server.release.wait()
        if isinstance(fault, int):
            code = CODES.get(fault, "InternalError")
            return self.answer(fault, [("Content-Type", "application/xml")],
                               f"<Error><Code>{code}</Code><Message>said {code}</Message></Error>".encode())
        self.answer(*self.fetched(), fault)

    do_HEAD = do_GET

    def fetched(self) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.server.behind)
        connection.request(self.command, self.path, headers=dict(self.headers))
        response = connection.getresponse()
        body = response.read()
        connection.close()
        headers = [(name, value) for name, value in response.getheaders()
                   if name.lower() not in HOP and not name.lower().startswith("x-amz-checksum")]
        return response.status, headers, body

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str | None = None) -> None:
        middle = len(body) // 2
        if fault == "wrong":
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]
        if fault == "short":
            body = body[:middle]
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:middle] if fault == "cut" else body)
        self.close_connection = self.close_connection or fault == "cut"


@contextmanager
def running() -> Iterator[tuple[Front, AbstractFileSystem]]:
    """The front, which the environment names to all S3 clients, and the file system behind it with an empty bucket."""
    moto = ThreadedMotoServer(port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    front = Front((host, port))
    thread = threading.Thread(target=front.serve_forever, args=(0.01,))
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": front.url, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
                            "AWS_DEFAULT_REGION": "us-east-1"}.items():
            patch.setenv(name, value)
        S3FileSystem.clear_instance_cache()  # of other tests' servers
        fs = fsspec.filesystem("s3", endpoint_url=f"http://{host}:{port}", use_listings_cache=False,
                               skip_instance_cache=True)
        fs.mkdir(BUCKET)
        try:
            yield front, fs
        finally:
            front.release.set()
            front.shutdown()
            front.server_close()
            thread.join()
            moto.stop()
