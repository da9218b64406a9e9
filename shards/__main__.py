"""Check a dataset, describe it, repair it, or make one of existing tars.

    python -m shards verify DATASET [--workers N]      exit code 0: whole, 1: faults, one a line, 2: wrong usage
    python -m shards info DATASET
    python -m shards repair DATASET [--workers N]      exit code 0: whole, 1: some of it cannot be rebuilt
    python -m shards adopt TAR… --out DATASET [--val TAR…] [--test TAR…] [--classes CSV]
        [--label-from cls:text|json:FIELD|CSV] [--workers N]
"""
import argparse
import sys
from pathlib import Path

import joblib

from arcshard.console import Parser, UserError, check_least, run
from arcshard.urls import is_url
from shards.adopt import adopt
from shards.info import info
from shards.repair import repair
from shards.verify import verify
from shards.verify_remote import verify_remote


def main() -> int:
    args = parse_args()
    if args.command != "info":
        check_least(args, 1, "workers")
    return {"verify": _verify, "info": _info, "repair": _repair, "adopt": _adopt}[args.command](args)


def parse_args() -> argparse.Namespace:
    parser = Parser(prog="python -m shards", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("verify", "re-read every byte and name each fault"), ("info", "describe a dataset"),
                       ("repair", "rebuild index, labels, .idx and dataset.json from the tars")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("dataset", help="folder of the dataset" + (", or s3://…" if name != "repair" else ""))
    commands.choices["info"].add_argument("--html", help=argparse.SUPPRESS)  # refused since the page moved
    adopting = commands.add_parser("adopt", help="make a dataset of tars", description="make a dataset of tars")
    adopting.add_argument("train", type=Path, nargs="+", metavar="TAR", help="WebDataset tar, a shard of split train")
    adopting.add_argument("--val", type=Path, nargs="+", default=[], metavar="TAR", help="of split val")
    adopting.add_argument("--test", type=Path, nargs="+", default=[], metavar="TAR", help="of split test")
    adopting.add_argument("--out", type=Path, required=True, help="folder of the dataset, made if missing")
    adopting.add_argument("--classes", type=Path, help="CSV with columns label, landmark_id[, name] (default: landmark "
                                                       "ids are the labels' numbers)")
    adopting.add_argument("--label-from", metavar="cls:text|json:FIELD|CSV", help="take landmark ids from the text of "
                          "each sample's .cls, from a field of its .json, or from a CSV with columns key, landmark_id "
                          "(default: .cls has labels, 0, 1, …)")
    for name in ("verify", "repair", "adopt"):
        commands.choices[name].add_argument("--workers", type=int, default=joblib.cpu_count(),
                                            help="processes (default: cores)")
    return parser.parse_args()


def _verify(args: argparse.Namespace) -> int:
    faults = verify_remote(args.dataset) if is_url(args.dataset) else verify(args.dataset, args.workers)
    print("\n".join(faults) or f"{args.dataset} is whole: every byte is as it was packed")
    return 1 if faults else 0


def _info(args: argparse.Namespace) -> int:
    if args.html:
        raise UserError("shards info no longer has --html: the page is written by "
                        f"python report.py --data {args.dataset} --out {args.html}")
    print(info(args.dataset))
    return 0


def _repair(args: argparse.Namespace) -> int:
    rebuilt, lost = repair(Path(args.dataset), args.workers)
    print("\n".join([*(f"rebuilt {name}" for name in rebuilt), *lost])
          or f"{args.dataset} is whole: there is nothing to repair")
    return 1 if lost else 0


def _adopt(args: argparse.Namespace) -> int:
    adopt({"train": args.train, "val": args.val, "test": args.test}, args.out, args.classes, args.workers,
          args.label_from)
    print(info(args.out))
    return 0


if __name__ == "__main__":
    sys.argv[0] = "shards"  # the name in front of an error's sentence; python -m puts this file's path there
    run(main)
