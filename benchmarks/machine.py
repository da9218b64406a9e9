"""What is printed with every figure: the machine, versions, and how far the rounds lie apart."""
import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from arcshard.files import write_text


def machine(packages: Sequence[str]) -> dict[str, Any]:
    """Processor, cores that this process may use, memory, Python, and those of the packages that are installed."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {"processor": names[0] if names else platform.machine(), "cores": len(os.sched_getaffinity(0)),
            "memory": f"{memory:.0f} GB", "python": platform.python_version(),
            **{name: found for name in packages if (found := _version(name))}}


def publish(args: argparse.Namespace, packages: Sequence[str], measure: Callable[[argparse.Namespace], dict[str, Any]],
            text: Callable[[dict[str, Any]], str]) -> None:
    """Measure, print the report as `text` has it, and write all of it to --json."""
    report = {"machine": machine(packages), **measure(args)}
    print(text(report))
    if args.json:
        write_text(args.json, json.dumps(report, indent=2) + "\n")


def median_range(values: Iterable[float], form: str) -> str:
    """Median (least to most, n)."""
    listed = list(values)
    return f"{statistics.median(listed):{form}} ({min(listed):{form}} to {max(listed):{form}}, n = {len(listed)})"


def listed(facts: dict[str, Any]) -> str:
    """name value, name value; what is empty is left out."""
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
