"""Download a competition's photos (or a dataset) from Kaggle; resume where an interrupted download stopped.

    python preprocess/fetch.py --out DIR [--competition landmark-recognition-2020 | --dataset OWNER/NAME] [--file NAME]

The result is one zip, DIR/NAME.zip, which make_shards.py reads without unpacking; with --file it is that file. Kaggle
requires a token (https://www.kaggle.com/settings/api, Generate New Token; put it into ~/.kaggle/access_token or the
environment variable KAGGLE_API_TOKEN; the older kaggle.json works as well), and that you accept the rules on the
competition's page.
"""
import argparse
import zipfile
from pathlib import Path

from arcshard.console import Parser, UserError, run
from arcshard.files import folder_lock, report_full_disk
from preprocess.fetching.download import MB, PartFile, download
from preprocess.fetching.kaggle import KaggleFile, ask, kaggle_file
from preprocess.fetching.retry import retry_request

COMPETITION = "landmark-recognition-2020"


def main() -> None:
    args = parse_args()
    wanted = kaggle_file(args.competition, args.dataset, args.file)
    args.out.mkdir(parents=True, exist_ok=True)
    with folder_lock(args.out), report_full_disk(args.out):
        fetch(wanted, args.out)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the zip")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--competition", default=COMPETITION, metavar="NAME",
                        help=f"which competition (default: {COMPETITION})")
    source.add_argument("--dataset", metavar="OWNER/NAME", help="a dataset instead of a competition")
    parser.add_argument("--file", metavar="NAME", help="download only this file")
    return parser.parse_args()


def fetch(wanted: KaggleFile, out: Path) -> None:
    """Download the file into the folder `out`, unless it exists."""
    for path in (out / wanted.name, out / f"{wanted.name}.zip"):
        if path.exists():
            return report_existing(path)
    name = wanted.name
    if wanted.file is not None:  # only Kaggle knows whether it comes zipped
        name = wanted.name_at(str(retry_request(lambda: ask(wanted)).url))
    part = PartFile(out / name)
    served = download(part, lambda: ask(wanted))
    hashed = served.md5 or served.crc32c
    proof = "size and hash" if hashed else "size" if served.size is not None else "nothing to compare"
    print(f"fetched {part.whole}: {size_text(part.whole)}, checked: {proof}")


def report_existing(path: Path) -> None:
    """Report that the file exists. Raises UserError for half a zip, as other programs leave it when interrupted."""
    if path.suffix == ".zip" and not zipfile.is_zipfile(path):
        raise UserError(f"{path} is not a whole zip: it has no zip directory at its end (was another program "
                        "interrupted?); delete it and run the same command again")
    PartFile(path).record.unlink(missing_ok=True)  # a kill may have come between the last two steps
    print(f"nothing to fetch: {path} exists ({size_text(path)}); delete it to fetch it again")


def size_text(path: Path) -> str:
    return f"{path.stat().st_size / MB:,.1f} MB"


if __name__ == "__main__":
    run(main)
