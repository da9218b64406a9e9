"""What benchmarks/packing.py says: the machine and versions that figures travel with, and the figures as text."""
import json
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from machine import listed, spread
from packing_contests import ARCSHARD, CONTESTS, SMALL, Contest

from preprocess.packing.pack import REHEARSED

PACKAGES = ("simplejpeg", "jpeglib", "opencv-python-headless", "pillow", "numpy", "joblib")
PEER_PACKAGES = ("ffcv", "mosaicml-streaming", "webdataset", "opencv-python", "numpy")
VERSIONS = ("import json, sys, importlib.metadata as m; "
            "there = {d.metadata['Name'].lower(): d.version for d in m.distributions()}; "
            "print(json.dumps({name: there[name] for name in sys.argv[1:] if name in there}))")

Seconds = dict[str, float]  # contender -> seconds of a round


def tar_version() -> dict[str, str]:
    said = subprocess.run(["tar", "--version"], capture_output=True, text=True, check=True).stdout
    return {"tar": said.splitlines()[0]}


def peer_versions(python: Path | None, packages: Sequence[str]) -> dict[str, str]:
    """Versions of those that the peers' environment has, by its interpreter; none without one."""
    if python is None:
        return {}
    done = subprocess.run([python, "-c", VERSIONS, *packages], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def speed_text(report: dict[str, Any]) -> str:
    """Median (least to most) of the rounds: rates, and make_shards' rate as a multiple of each opponent's."""
    lines = [listed(report["machine"]), listed(report["peers"])]
    for contest in CONTESTS:
        if contest.name in report["settings"]["photos"]:
            rounds = [each[contest.name] for each in report["rounds"]]
            lines += contest_lines(contest, rounds, report["settings"]["photos"][contest.name])
    return "\n".join(lines)


def contest_lines(contest: Contest, rounds: list[Seconds], count: int) -> list[str]:
    small = statistics.median(seconds[SMALL] for seconds in rounds)
    ours = [(count - REHEARSED) / (seconds[ARCSHARD] - small) for seconds in rounds]
    lines = [f"{contest.name}, {count:,} photos", _row(ARCSHARD, ours, "photos/s"),
             _row("", [count / seconds[ARCSHARD] for seconds in rounds], f"photos/s with its start of {small:.1f} s")]
    for name, goal in contest.goals.items():
        if name in rounds[0]:
            theirs = [count / seconds[name] for seconds in rounds]
            ratio = spread((a / b for a, b in zip(ours, theirs)), ".2f")
            aim = f", goal {goal:.2f}" if goal else ""
            lines.append(_row(name, theirs, f"photos/s; arcshard is {ratio} times as fast{aim}"))
    return lines


def memory_text(report: dict[str, Any]) -> str:
    lines = [listed(report["machine"])]
    lines += [f"{entry['samples']:>12,} samples: parent {entry['parent_mb']:,.0f} MB, largest worker "
              f"{entry['worker_mb']:,.0f} MB, {entry['seconds']:,.0f} s" for entry in report["memory"]]
    return "\n".join(lines)


def _row(name: str, rates: Iterable[float], unit: str) -> str:
    return f"  {name:13}{spread(rates, ',.0f')} {unit}"
