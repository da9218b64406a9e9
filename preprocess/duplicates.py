"""Find photos that occur in several splits: the score of a query that was trained on is meaningless.

    python preprocess/duplicates.py --samples samples.csv --images DIR|ZIP|TAR… --out duplicates.csv
        [--distance 4] [--within] [--drop train --cleaned samples2.csv] [--html duplicates.html] [--max-pixels N]
        [--workers N] [--benchmark DIR --block FILE]

Exact duplicates are equal files. Near duplicates have 64-bit perceptual hashes that differ in at most --distance bits:
the same photo at another scale or JPEG quality, little else. --within also compares the photos of each split with each
other, to find a photo in two classes. The report has one row per pair: id_a, split_a, landmark_a, id_b, split_b,
landmark_b, kind (exact or near), distance.

Hashes are kept in OUT.hashes: if the command is killed, the same command continues where it stopped, and another
--distance takes seconds. Hashes are not updated: delete the folder if photos have changed.

--drop writes the table without the photos of one split that have a duplicate in another. Labels stay the same, so a
class that would lose all its photos keeps one. Classes may then have fewer photos than clean.py's --min-images; to drop
them, clean the remaining photos with the same --min-images and --solution:

    awk -F, 'NR == 1 || $4 != "test"' samples2.csv > photos.csv
    python preprocess/clean.py --csv photos.csv --folds-like samples2.csv --min-images 15 … --out samples3.csv

--benchmark compares the table's photos with those of a benchmark as well. --block writes the keys of all photos of the
landmarks that both have, and of single photos without landmark, as train.py leaves them out (--select.block FILE).
"""
import argparse
from pathlib import Path

import joblib
import numpy as np
import pandas as pd

from arcshard.console import Parser, UserError, check_least, run
from arcshard.files import folder_lock, report_full_disk, write_text
from arcshard.trees import files_below
from pages import duplicates as duplicates_page
from preprocess.dedup.hashes import HashedPhotos, check_library, hash_photos
from preprocess.dedup.pairs import MAX_PAIRS, Duplicates, TooManyPairs, find_duplicates
from preprocess.dedup.report import BENCHMARK, failures, summary, thin, write_report
from preprocess.engine import Engine
from preprocess.images.formats import PHOTO_ENDINGS, add_max_pixels
from preprocess.samples.raw_tables import ids_from_paths
from preprocess.samples.sample_table import check_samples, read_samples
from preprocess.samples.text_table import column_names, read_columns, write_table
from preprocess.sources import open_source
from shards.format import NO_LANDMARK

# On the demo's photos it finds 99 % of those rescaled or re-encoded, 89 % of those with 2 % cut off, and no wrong pair.
DISTANCE = 4
MAX_DISTANCE = 12  # bits; at more, different photos of the demo begin to match (6 of 2.4 million pairs)


def main() -> None:
    args = parse_args()
    engine = Engine(args.workers)
    check_library()
    samples = read_samples(args.samples)
    check_samples(samples)
    check_splits(args, samples)
    if args.benchmark and BENCHMARK in samples["split"].cat.categories:
        raise UserError(f"{args.samples} has a split {BENCHMARK} already, as the photos of --benchmark are called: "
                        "rename it")
    samples = samples.sort_values("id", ignore_index=True)
    benchmark = photos_below(args.benchmark) if args.benchmark else None
    store = args.out.with_name(f"{args.out.name}.hashes")
    store.mkdir(parents=True, exist_ok=True)
    with report_full_disk(args.out), folder_lock(store):
        report(args, engine, samples, store, benchmark)


def report(args: argparse.Namespace, engine: Engine, samples: pd.DataFrame, store: Path, benchmark: pd.DataFrame | None
           ) -> None:
    """Hash the photos, keep the hashes in `store`, and write the report and what else was asked for."""
    source = open_source(args.images, store / "sources", args.workers)
    source.refuse_ambiguous(samples["id"], samples.get("path"))
    hashed = hash_photos(samples, source, store, engine, args.max_pixels)
    if benchmark is not None:
        source_of_benchmark = open_source([str(args.benchmark)], store / "sources", args.workers)
        samples, hashed = joined(samples, hashed, benchmark,
                                 hash_photos(benchmark, source_of_benchmark, store, engine, args.max_pixels))
    print(f"hashed {len(samples) - hashed.reused - len(hashed.reasons):,} photos, took {hashed.reused:,} hashes from "
          f"{store}")
    duplicates = compare(samples, hashed, args.distance, args.within)
    write_report(args.out, samples, duplicates)
    lines = [*summary(samples, duplicates), *failures(samples, hashed.reasons)]
    print("\n".join(lines))
    if args.drop is not None:
        print(drop(args.samples, args.cleaned, samples, duplicates, args.drop))
    if args.block is not None:
        keys = shared(samples, duplicates)
        write_text(args.block, "".join(f"{key}\n" for key in keys))
        print(f"{args.block}: {len(keys):,} photos to leave out of training with --select.block")
    if args.html is not None:
        write_text(args.html, duplicates_page.render(samples, duplicates, lines, source))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="the table that clean.py wrote")
    parser.add_argument("--images", nargs="+", required=True, metavar="DIR|ZIP|TAR", help="where the photos are")
    parser.add_argument("--out", type=Path, required=True, help="the report, a CSV file")
    parser.add_argument("--distance", type=int, default=DISTANCE,
                        help=f"bits, 0 to {MAX_DISTANCE} (default: {DISTANCE})")
    parser.add_argument("--within", action="store_true", help="also find pairs within a split")
    parser.add_argument("--drop", metavar="SPLIT", help="drop photos of this split that another split has too")
    parser.add_argument("--cleaned", type=Path, help="where to write the table without dropped photos")
    parser.add_argument("--benchmark", type=Path, metavar="DIR", help="also compare with the photos of this folder")
    parser.add_argument("--block", type=Path, help="write the keys of the landmarks that --benchmark shows")
    parser.add_argument("--html", type=Path, help="write a page that shows pairs side by side")
    add_max_pixels(parser)
    parser.add_argument("--workers", type=int, default=joblib.cpu_count(), help="processes (default: one per core)")
    args = parser.parse_args()
    if not 0 <= args.distance <= MAX_DISTANCE:
        raise UserError(f"--distance is {args.distance}: give 0 to {MAX_DISTANCE} bits; with more, different photos "
                        "match")
    check_least(args, 1, "max_pixels")
    if (args.drop is None) != (args.cleaned is None):
        given, missing = ("--cleaned", "--drop") if args.drop is None else ("--drop", "--cleaned")
        raise UserError(f"{given} is given without {missing}: --drop names a split, --cleaned the table to write "
                        "without its duplicates, add the missing one")
    if bool(args.benchmark) != bool(args.block) or args.benchmark and args.html:
        raise UserError("--benchmark, the folder, and --block, the list of keys to write, belong together, and --html "
                        "does not show them: give both without --html")
    return args


def check_splits(args: argparse.Namespace, samples: pd.DataFrame) -> None:
    """Raise UserError if there are no two splits to compare, or --drop names none of them."""
    names = sorted(samples["split"].unique())
    if len(names) == 1 and not (args.within or args.benchmark):
        raise UserError(f"{args.samples} has only the split {names[0]}, and duplicates are sought between splits: "
                        "add --within to search inside it")
    if args.drop is not None and args.drop not in names:
        raise UserError(f"{args.samples} has no split {args.drop}: set --drop to one of {', '.join(names)}")


def compare(samples: pd.DataFrame, hashed: HashedPhotos, distance: int, within: bool) -> Duplicates:
    """The duplicates among the photos that could be hashed. Raises UserError if there are too many pairs."""
    could = np.ones(len(samples), bool)
    could[list(hashed.reasons)] = False
    splits = {str(name): np.flatnonzero(could & (samples["split"] == name)) for name in samples["split"].unique()}
    try:
        return find_duplicates(hashed.records, splits, distance, within)
    except TooManyPairs:
        raise UserError(f"--distance {distance} finds more than {MAX_PAIRS:,} pairs: choose a smaller one") from None


def photos_below(folder: Path) -> pd.DataFrame:
    """The photos of a benchmark as rows of a sample table. Raises UserError if there are none."""
    paths = pd.Series(sorted(path for path in files_below(folder) if Path(path).suffix.lower() in PHOTO_ENDINGS),
                      name="path", dtype="str")
    if not len(paths):
        raise UserError(f"--benchmark {folder} has no photos: check the path")
    return pd.DataFrame({"id": ids_from_paths(paths), "landmark_id": "", "label": NO_LANDMARK, "split": BENCHMARK,
                         "path": paths})


def joined(samples: pd.DataFrame, hashed: HashedPhotos, benchmark: pd.DataFrame, its: HashedPhotos
           ) -> tuple[pd.DataFrame, HashedPhotos]:
    """The table and its hashes with the benchmark's behind them."""
    columns = [column for column in benchmark if column != "path"]
    reasons = {len(samples) + row: reason for row, reason in its.reasons.items()}
    return (pd.concat([samples[columns], benchmark[columns]], ignore_index=True),
            HashedPhotos(np.concatenate([hashed.records, its.records]), hashed.reasons | reasons,
                         hashed.reused + its.reused))


def shared(samples: pd.DataFrame, duplicates: Duplicates) -> list[str]:
    """Keys of the photos that have a duplicate in the benchmark, and of all others of their landmarks, ascending."""
    rows = np.concatenate([np.empty(0, np.int32), *(found.pairs["a" if b == BENCHMARK else "b"] for (a, b), found in
                                                    duplicates.items() if a != b and BENCHMARK in (a, b))])
    labels = samples["label"].to_numpy()
    own = np.isin(np.arange(len(samples)), rows) | np.isin(labels, labels[rows][labels[rows] != NO_LANDMARK])
    return sorted(samples["id"][own].tolist())


def drop(path: Path, cleaned: Path, samples: pd.DataFrame, duplicates: Duplicates, split: str) -> str:
    """Write the table at `path` without the duplicates of `split` to `cleaned`; returns a line for the user."""
    thinning = thin(samples, duplicates, split)
    table = read_columns(path, column_names(path))
    write_table(cleaned, table[~table["id"].isin(samples["id"].iloc[thinning.dropped])])
    line = f"dropped {len(thinning.dropped):,} photos of {split}: {cleaned}"
    if len(thinning.kept):
        line += (f"; kept {len(thinning.kept):,} that have a duplicate, since each is the last of its class: "
                 + ", ".join(samples["id"].iloc[thinning.kept[:3]]) + (", …" if len(thinning.kept) > 3 else ""))
    return line


if __name__ == "__main__":
    run(main)
