"""python -m retrieval serve: a web page that answers the photos dropped on it."""
import argparse
from ipaddress import ip_address
from pathlib import Path

from answering.options import add_answer_options, add_checkpoint
from arcshard.console import UserError
from retrieval import Pipeline, read_pipeline

MAX_BYTES = 20_000_000  # of an upload
PORT = 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="whose train split is the gallery: folder or s3://…")
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    add_checkpoint(parser)
    add_answer_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0 is any free one")


def serve(args: argparse.Namespace) -> None:
    """Answer until SIGTERM or Ctrl-C. Raises UserError for what cannot be served."""
    try:
        from answering.web_answers import load_answerer
        from retrieval import web
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs {error.name}: pip install -e '.[serve]'") from error
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port must be from 0 to 65535, not {args.port}")
    pipeline = read_pipeline(args.answers) if args.answers else Pipeline()
    answerer = load_answerer([args.run, *args.ensemble], args.checkpoint, args.dataset, pipeline)
    local = is_loopback(args.host)
    if not local:
        print(f"warning: whoever reaches {args.host} can ask this server and see the gallery's photos; it has no "
              "password and no encryption", flush=True)
    web.serve(web.create_app(answerer, MAX_BYTES, [args.host, "localhost"] if local else None), args.host, args.port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
