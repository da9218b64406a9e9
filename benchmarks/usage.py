"""Time and peak memory of a command and of the processes that it starts."""
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from arcshard.console import UserError

PAUSE = 0.1  # seconds between two looks; the kernel keeps the peak, so a look misses only what grew since


class Usage(NamedTuple):
    """What a finished command took: seconds, and peaks of resident memory in MB (worker_mb 0: it started none)."""

    seconds: float
    parent_mb: float
    worker_mb: float  # of its largest descendant


def usage_of(words: Sequence[object], folder: Path | None = None) -> tuple[Usage, str]:
    """Run `python WORD …`, in that folder, to its end: what it took and printed. Raises UserError if it fails."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, words)], cwd=folder, stdout=subprocess.PIPE, text=True)
    parent, worker = 0.0, 0.0
    while process.poll() is None:
        parent = max(parent, peak(process.pid))
        worker = max(worker, *map(peak, descendants(process.pid)), 0.0)
        time.sleep(PAUSE)
    printed, _ = process.communicate()
    if process.returncode:
        raise UserError(f"{words[0]} failed with exit code {process.returncode}: see its message above")
    return Usage(time.perf_counter() - began, parent, worker), printed


def peak(pid: int) -> float:
    """Highest resident memory so far, in MB; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process started, and those that they started."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in " ".join(lists).split():
        yield int(child)
        yield from descendants(int(child))
