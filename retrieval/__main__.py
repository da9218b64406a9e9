"""Commands about a run's answers.

    python -m retrieval rerank --run RUN --data DATASET --answers YAML --out YAML     fit a judge of candidates
    python -m retrieval serve DATASET --run RUN [--answers YAML]                      answer photos on a web page
"""
import argparse

from answering import reranking, serving  # the door to what needs a run as well; see answering/
from arcshard.console import Parser, run


def main() -> None:
    args = parse_args()
    {"rerank": reranking.rerank, "serve": serving.serve}[args.command](args)


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m retrieval", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "fit a judge of the candidates that a run's answers have"
    reranking.add_arguments(commands.add_parser("rerank", help=text, description=text))
    text = "answer the photos that are dropped on a web page of this machine"
    serving.add_arguments(commands.add_parser("serve", help=text, description=text))
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
