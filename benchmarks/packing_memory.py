"""Peak resident memory of make_shards.py at several numbers of tiny photos, all in one stored zip: no inode each."""
import argparse
import io
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packing_photos import photo_id, write_table
from PIL import Image

from arcshard.console import UserError, progress

MAKE_SHARDS = Path(__file__).resolve().parent.parent / "preprocess" / "make_shards.py"
SIDE = 16  # pixels of a photo
PAUSE = 0.1  # seconds between two looks; the kernel keeps the peak, so a look misses only what grew since


def memory_report(args: argparse.Namespace) -> dict[str, Any]:
    """{"memory": one entry for each of args.samples: samples, peaks of parent and largest worker in MB, seconds}."""
    work = args.work.resolve()
    return {"memory": [{"samples": count} | _pack(*_tiny_photos(work, count), work / "out", args.workers)
                       for count in args.samples]}


def _tiny_photos(work: Path, count: int) -> tuple[Path, Path]:
    """A zip of `count` photos and their sample table; what an earlier call made is used again."""
    archive, table = work / f"tiny-{count}.zip", work / f"tiny-{count}.csv"
    if not table.exists():
        keys = [photo_id(number) for number in range(count)]
        photo = _tiny_photo()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as f:
            for key in progress(keys, unit="photo", what="make zip"):
                f.writestr(f"{'/'.join(key[:3])}/{key}.jpg", photo)
        write_table(table, keys)
    return archive, table


def _tiny_photo() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "teal").save(out, "JPEG", subsampling="4:2:0")
    return out.getvalue()


def _pack(archive: Path, table: Path, out: Path, workers: int) -> dict[str, float]:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, MAKE_SHARDS, "--samples", table, "--images", archive, "--out", out, "--workers", workers]
    began = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    parent, worker = 0.0, 0.0
    while process.poll() is None:
        parent = max(parent, _peak(process.pid))
        worker = max(worker, *map(_peak, _descendants(process.pid)), 0.0)
        time.sleep(PAUSE)
    shutil.rmtree(out, ignore_errors=True)
    if process.returncode:
        raise UserError(f"make_shards.py must end well, but ended with exit code {process.returncode}: see above")
    return {"parent_mb": parent, "worker_mb": worker, "seconds": time.perf_counter() - began}


def _peak(pid: int) -> float:
    """Highest resident memory so far, in MB; 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:"))


def _descendants(pid: int) -> Iterator[int]:
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in " ".join(lists).split():
        yield int(child)
        yield from _descendants(int(child))
