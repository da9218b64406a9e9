"""What the studies share."""
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from arcshard.console import UserError

ROOT = Path(__file__).parents[2]


def command(script: str, *words: object) -> None:
    """Run one of the project's scripts; raises UserError if it fails."""
    done = subprocess.run([sys.executable, ROOT / script, *map(str, words)])
    if done.returncode:
        raise UserError(f"{script} ended with exit code {done.returncode}: see its message above")


def median_range(values: Sequence[float], form: str) -> str:
    """Median (least to most, n), each formatted by `form`."""
    return (f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}}, n = {len(values)})")
