"""Options that several pages share."""
import argparse
from pathlib import Path

from answering.tta import Tta, read_tta
from arcshard import checkpoint


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """What decides how photos are answered, here, in predict.py and in tune.py."""
    parser.add_argument("--answers", type=Path, help="YAML list of steps, as in configs/answers; default: five voters")
    parser.add_argument("--ensemble", type=Path, nargs="+", default=[], metavar="RUN",
                        help="further runs, whose embeddings answer together with this one's")
    add_tta(parser)


def add_tta(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tta", type=read_tta, default=Tta(), metavar="VIEWS",
                        help="mean embedding of more views of each photo: flip and scales of the run's size, as in "
                             "flip,0.8,1.25 (default: none)")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE",
                        help=f"the run's file to use (default: {checkpoint.NAME}, the latest; {checkpoint.BEST} is "
                             "there with train.best, others with train.keep)")
