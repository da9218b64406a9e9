"""Commands about runs.

    python -m training average RUN RUN [RUN ...] --data DATASET --out RUN     the mean of runs' weights, as a run
    python -m training generalize RUN --data DATASET --out RUN                fit it to landmarks that it has not seen
"""
import sys

from arcshard.console import Parser, run
from training import generalize, soup


def main() -> None:
    parser = Parser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text, module in (
            ("average", "write a run whose weights are the mean of other runs' (a uniform soup)", soup),
            ("generalize", "write a run that also tells landmarks apart that this one has not seen: PCA of its pooled "
             "features joins the embedding", generalize)):
        module.add_arguments(commands.add_parser(name, help=text, description=text))
    args = parser.parse_args()
    {"average": soup.average, "generalize": generalize.generalize}[args.command](args)


if __name__ == "__main__":
    sys.argv[0] = "training"  # the name in front of an error's sentence; python -m puts this file's path there
    run(main)
