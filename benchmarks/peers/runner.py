"""What the runners of peers share: their arguments, the photos split among processes, one clock.

The clock starts after the imports and stops when all processes have ended; starting those is within it. No peer calls
fsync, so none of their times includes the disk.
"""
import argparse
import json
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path

Work = Callable[[Sequence[Path], Path], None]  # photos, output folder


def parse_args(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", type=Path, required=True, help="text file, a photo's path a line")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, there and empty")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--short-side", type=int, help="resize to it and encode again, in pixels")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of what is encoded (default: 90)")
    return parser.parse_args()


def read_list(path: Path) -> list[Path]:
    return [Path(line) for line in path.read_text().splitlines()]


def timed(work: Callable[[], object]) -> None:
    """Run it and print one JSON object: seconds."""
    began = time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - began}))


def in_processes(work: Work, photos: Sequence[Path], out: Path, workers: int) -> None:
    """Run work(part of the photos, out/NUMBER) in each process; raises RuntimeError if one fails."""
    fork = get_context("fork")  # inherits the imports, so that starting costs milliseconds
    running = []
    for number in range(workers):
        part = out / str(number)
        part.mkdir()
        running.append(fork.Process(target=work, args=(photos[number::workers], part)))
    for process in running:
        process.start()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise RuntimeError(f"a process of {work.__module__} failed: see its traceback above")


def reader(short_side: int | None, quality: int) -> Callable[[Path], bytes]:
    """How a photo comes to a writer: its own bytes, or resized and encoded by the function that arcshard packs with."""
    if short_side is None:
        return Path.read_bytes
    from preprocess.images.normalize import normalize

    return lambda path: normalize(path.read_bytes(), short_side, quality).data
