"""The app on a port."""
import logging
import os
import signal
import socket
from typing import NoReturn

from flask import Flask
from waitress import create_server

from arcshard.console import UserError

THREADS = 4  # answers wait for each other; the page's photos and files need not wait long


def serve(app: Flask, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; `port` 0 is any free one. Raises UserError if the port cannot be had."""
    limit = 2 * app.config["MAX_CONTENT_LENGTH"]  # above its own the app refuses, in a sentence
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port} ({os.strerror(error.errno or 0)}): "
                        "give another --port") from None
    # a body below inbuf_overflow stays in memory
    server = create_server(app, sockets=[listening], threads=THREADS, ident=None, max_request_body_size=limit,
                           inbuf_overflow=limit)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a page's photos wait for a thread, which is no news
    signal.signal(signal.SIGTERM, _stop)
    print(f"serving on http://{host}:{listening.getsockname()[1]}; Ctrl-C ends it", flush=True)
    try:
        server.run()  # returns after SystemExit and KeyboardInterrupt
    finally:
        server.close()


def _stop(*_: object) -> NoReturn:
    raise SystemExit(0)
