"""Commands about a run's embeddings and answers.

    python -m retrieval embed --run RUN [RUN ...] --data DATASET [--splits train val] [--out DIR] [--dtype float16]
    python -m retrieval neighbors --queries STORE --gallery STORE --out FILE.npz [--k 10]
    python -m retrieval rerank --run RUN --data DATASET --pipeline YAML --out YAML     fit a re-ranker of candidates
    python -m retrieval benchmark NAME --run RUN --truth FILE --gallery WHERE …        measure as published figures are
    python -m retrieval whiten --store STORE --out FILE.npy [--dim D] [--power 1]      learn a PCA whitening
    python -m retrieval serve DATASET --run RUN [--pipeline YAML]                      answer photos on a web page

embed and neighbors also run on all ranks of `torchrun --nproc-per-node N -m -- retrieval ...` (without the dashes
torchrun would take --run for an option of its own). embed resumes where it was interrupted, and writes a folder for
each run and split: RUN/embeddings/SPLIT (other data: RUN/embeddings/NAME-<8 hex digits>/SPLIT), where evaluate.py
looks, or DIR/RUN's name/SPLIT. neighbors writes scores float32 and rows int64, both (queries, k): higher score first,
then smaller row of the gallery.

This module is a command: it may import retrieval.run, which the rest of the package may not.
"""
import argparse
import sys

from arcshard.console import Parser, run
from retrieval import whitening
from retrieval.run import benchmark, embed, rerank, serve


def main() -> None:
    args = parse_args()
    {"embed": embed.embed, "neighbors": embed.neighbors, "rerank": rerank.rerank,
     "benchmark": benchmark.benchmark, "whiten": whitening.whiten, "serve": serve.serve}[args.command](args)


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m retrieval", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, add_arguments in (
            ("embed", "store the embeddings of a dataset's splits", embed.add_embed_arguments),
            ("neighbors", "find the nearest gallery photos of each query", embed.add_neighbors_arguments),
            ("rerank", "fit a re-ranker of the candidates that a pipeline finds", rerank.add_arguments),
            ("benchmark", "measure a run on Revisited Oxford and Paris, Google Landmarks or photos of your own",
             benchmark.add_arguments),
            ("whiten", "learn a PCA whitening from a store of embeddings", whitening.add_arguments),
            ("serve", "answer photos that are dropped on a web page", serve.add_arguments)):
        add_arguments(commands.add_parser(name, help=text, description=text))
    if sys.argv[1:2] == ["neighbours"]:
        parser.error("neighbours is now neighbors")
    return parser.parse_args()


if __name__ == "__main__":
    sys.argv[0] = "retrieval"  # the name in front of an error's sentence; python -m puts this file's path there
    run(main)
