"""Check a dataset, or say what it is.

    python -m shards verify DATASET    exit code 0: whole, 1: faults, one a line, 2: wrong usage
    python -m shards info DATASET
"""
import sys
from pathlib import Path

from arcshard.console import Parser, run
from shards.info import info
from shards.verify import verify


def main() -> int:
    parser = Parser(prog="python -m shards", description=__doc__)
    parser.add_argument("command", choices=["verify", "info"])
    parser.add_argument("dataset", type=Path, help="folder that preprocess/make_shards.py wrote")
    args = parser.parse_args()
    if args.command == "info":
        print(info(args.dataset))
        return 0
    faults = verify(args.dataset)
    print("\n".join(faults) or f"{args.dataset} is whole: every byte is as it was packed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.argv[0] = "shards"  # the name in front of an error's sentence; python -m puts this file's path there
    run(main)
