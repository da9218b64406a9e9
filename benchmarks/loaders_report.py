"""What benchmarks/loaders.py says: rates, ratios, and which goals are met."""
import statistics
from collections.abc import Iterable
from typing import Any

from loaders_contests import ARCSHARD, CONTESTS, OTHERS, PARTS, READ, Contest
from machine import listed, spread

PACKAGES = ("torch", "torchvision", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "timm", "webdataset",
            "opencv-python-headless", "pillow", "numpy")
PEER_PACKAGES = ("ffcv", "mosaicml-streaming", "litdata", "spdl", "torch", "torchvision", "pillow", "opencv-python")

Rates = dict[str, float]  # contender -> images/s of a round


def speed_text(report: dict[str, Any]) -> str:
    """Median (least to most) of the rounds, arcshard's rate as a multiple of each other's, and a verdict a goal."""
    lines = [listed(report["machine"]), listed(report["peers"])]
    for contest in CONTESTS:
        if contest.name in report["contests"]:
            found = report["contests"][contest.name]
            lines += contest_lines(contest, found["rounds"], found["absent"])
    return "\n".join(lines)


def contest_lines(contest: Contest, rounds: list[Rates], absent: dict[str, str]) -> list[str]:
    """Contenders that were absent from a round are named with the reason, without a rate."""
    lines = [f"{contest.name}: {contest.form.name}, {contest.size} px"]
    for name in rounds[0]:
        if name not in absent:
            lines.append(_row(contest, name, rounds))
    others = [name for name in rounds[0] if name in OTHERS and name not in absent]
    if others:
        ratios = [r[ARCSHARD] / max(r[name] for name in others) for r in rounds]
        lines.append(f"  {'best of others':15}arcshard is {spread(ratios, '.2f')} times as fast"
                     f"{verdict(ratios, contest.best)}")
    return lines + [f"  {name:15}did not run: {why}" for name, why in absent.items()]


def verdict(values: Iterable[float], goal: float | None) -> str:
    """The goal, and whether the median reaches it."""
    if goal is None:
        return ""
    return f", goal {goal:,g}: {'met' if statistics.median(values) >= goal else 'missed'}"


def _row(contest: Contest, name: str, rounds: list[Rates]) -> str:
    rates = [r[name] for r in rounds]
    line = f"  {name:15}{spread(rates, ',.0f')} images/s"
    if name == ARCSHARD:
        return line
    if name == READ:
        return line + verdict(rates, contest.least_read)
    ratios = [r[ARCSHARD] / r[name] for r in rounds]
    what = "of it" if name in PARTS else "times as fast"
    return f"{line}; arcshard is {spread(ratios, '.2f')} {what}{verdict(ratios, contest.goals.get(name))}"


def memory_text(report: dict[str, Any]) -> str:
    """Growth after each epoch, in MB beyond the start, and the bound."""
    found = report["memory"]
    grown = found["grown_mb"]
    met = "kept" if max(grown) <= found["bound_mb"] else "broken"
    return "\n".join([
        listed(report["machine"]),
        f"memory beyond the start and the maps after each of {len(grown)} epochs of {found['samples']:,} photos, MB: "
        + " ".join(f"{value:.0f}" for value in grown),
        f"bound: {found['batches']} batches of {found['batch_mb']:.0f} MB + {found['rest_mb']} MB = "
        f"{found['bound_mb']:.0f} MB: {met}"])
