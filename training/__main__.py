"""Commands about runs.

    python -m training average RUN RUN [RUN ...] --data DATASET --out RUN     the mean of runs' weights, as a run
"""
import sys
from pathlib import Path

from arcshard import checkpoint
from arcshard.console import Parser, run
from training.soup import average


def main() -> None:
    parser = Parser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "write a run whose weights are the mean of other runs' (a uniform soup)"
    add = commands.add_parser("average", help=text, description=text)
    add.add_argument("runs", type=Path, nargs="+", metavar="RUN",
                     help="folders that train.py wrote, of one recipe, that went on from the same checkpoint")
    add.add_argument("--data", required=True, help="dataset that they were trained on: folder or s3://…")
    add.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder to write")
    add.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE", help=f"of each run (default: "
                     f"{checkpoint.NAME})")
    add.add_argument("--images", type=int, default=8192,
                     help="training images over which BatchNorm's statistics are computed anew (default: 8192)")
    average(parser.parse_args())


if __name__ == "__main__":
    sys.argv[0] = "training"  # the name in front of an error's sentence; python -m puts this file's path there
    run(main)
