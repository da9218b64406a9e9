"""Time and peak memory of clean.py on tables of the size of Google Landmarks v2, and of what reads its output.

    python benchmarks/clean.py --folder DIR

Makes the tables in DIR (benchmarks/scale_tables.py, 0.5 GB, kept for the next time) and runs each stage of the
winners in a process of its own, then benchmarks/sample_table.py on 10 k, 1 M and 4.1 M rows.
"""
import subprocess
import sys
from itertools import islice
from pathlib import Path

from usage import usage_of

from arcshard.console import Parser, run

ROOT = Path(__file__).parent.parent
STAGES = {
    "clean, 15 images a class": "--csv clean.csv",
    "clean, all, 5 folds": "--csv clean.csv --min-images 1 --folds 5 --val-fold 0",
    "full, all, 5 folds": "--csv full.csv --min-images 1 --folds 5 --val-fold 0",
    "full, of clean's classes": "--csv full.csv --min-images 1 --classes-like samples.csv --folds-like samples.csv",
    "full, 100 images a class": "--csv full.csv --images-per-class 100",
}
ROWS = (10_000, 1_000_000, 4_132_914)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="scratch, made if missing")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, full in (("clean.csv", False), ("full.csv", True)):
        if not (folder / name).exists():
            usage_of([ROOT / "benchmarks" / "scale_tables.py", name, *["--full"] * full], folder)
    clean = ROOT / "preprocess" / "clean.py"
    usage_of([clean, *STAGES["clean, all, 5 folds"].split(), "--out", "samples.csv"], folder)
    for name, options in STAGES.items():
        usage, _ = usage_of([clean, *options.split(), "--out", "out.csv"], folder)
        print(f"{name}: {usage.seconds:.1f} s, peak {usage.parent_mb:,.0f} MB", flush=True)
    for rows in ROWS:
        head(folder / "full.csv", folder / "head.csv", 1 + rows)
        usage_of([clean, "--csv", "head.csv", "--min-images", "1", "--out", "out.csv"], folder)
        read = [ROOT / "benchmarks" / "sample_table.py", "--samples", folder / "out.csv"]
        subprocess.run([sys.executable, *read], check=True)


def head(source: Path, target: Path, lines: int) -> None:
    with open(source, "rb") as f, open(target, "wb") as out:
        out.writelines(islice(f, lines))


if __name__ == "__main__":
    run(main)
