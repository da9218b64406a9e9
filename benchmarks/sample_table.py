"""What reading, checking, shuffling and digesting a sample table cost, as make_shards.py does it.

    python benchmarks/sample_table.py --samples samples.csv

The peak is this process's own (VmHWM); a row's bytes are what it grew by since the imports, a row.
"""
import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arcshard.console import Parser, run
from preprocess.samples.sample_table import check_samples, digest, read_samples, shuffled


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="the table")
    print(line(parser.parse_args()))


def line(args: argparse.Namespace) -> str:
    before = peak_bytes()
    read, samples = timed(lambda: read_samples(args.samples))
    held = samples.memory_usage(deep=True).sum()
    check, _ = timed(lambda: check_samples(samples))
    shuffle, samples = timed(lambda: shuffled(samples, 0))
    hashing, _ = timed(lambda: digest(samples))
    peak, rows = peak_bytes(), len(samples)
    return (f"{rows:,} rows: read {read:.2f} s, check {check:.2f} s, shuffle {shuffle:.2f} s, digest {hashing:.2f} s; "
            f"peak {peak / 1e6:.0f} MB ({before / 1e6:.0f} MB after the imports), {(peak - before) / rows:.0f} bytes "
            f"a row, of which the table holds {held / rows:.0f}")


def timed(step: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = step()
    return time.perf_counter() - start, result


def peak_bytes() -> int:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    run(main)
