"""What benchmarks/throughput.py says: rates with their spread, the verdict, what a schedule would take, a picture."""
import io
import statistics
from typing import Any

import matplotlib
from machine import listed, spread
from matplotlib.figure import Figure

PACKAGES = ("torch", "nvidia-dali-cuda130", "nvidia-dali-cuda120", "opencv-python-headless", "timm")
PARTS = {"read": "order and read", "decode": "decode of crops", "loader": "whole loader", "dali": "DALI's own reader",
         "step": "training step", "both": "loader and step"}
SCHEDULE = 10 * 1_223_195  # images: ten epochs of Google Landmarks without its classes of fewer than 15 photos
BOUND = 0.95  # of its own rate that a step keeps which only computing limits
BLUE, GRAY, INK = "#0b5cad", "#9aa4b0", "#24292f"


def text(report: dict[str, Any]) -> str:
    """The figures as a person reads them: median (least to most) of the rounds."""
    rounds, classes = report["rounds"], report["classes_a_batch"]
    lines = [listed(report["machine"]), listed(report["settings"])]
    lines += [f"{label:18}{spread([r[name] for r in rounds], ',.0f')} images/s" for name, label in PARTS.items()]
    lines.append(f"{'both / step':18}{spread([r['both'] / r['step'] for r in rounds], '.3f')}")
    lines.append(f"{'loader / DALI':18}{spread([r['loader'] / r['dali'] for r in rounds], '.2f')}")
    lines.append(f"{'wait share':18}{spread([r['wait_share'] for r in rounds], '.3f')} of the time of loader and step")
    lines.append(f"{'classes a batch':18}{classes['seen']:.1f}, of a random permutation {classes['expected']:.1f}")
    return "\n".join([*lines, verdict(rounds), schedule(rounds)])


def verdict(rounds: list[dict[str, float]]) -> str:
    """Which part sets the pace, judged by what the step loses to the loader beside it."""
    together = statistics.median(r["both"] / r["step"] for r in rounds)
    pace = statistics.median(r["loader"] / r["step"] for r in rounds)
    reached = f"with the loader beside it the step reaches {together:.0%} of its own rate"
    if pace < 1:
        slow = min(("read", "decode"), key=lambda name: statistics.median(r[name] for r in rounds))
        return (f"{slow}-bound: {reached}; it could take {1 / pace:.1f} times what the loader gives, whose slowest "
                f"part is the {PARTS[slow]}")
    return (f"{'compute' if together >= BOUND else 'processor'}-bound: {reached}; the loader alone could feed "
            f"{pace:.1f} such networks" + ("" if together >= BOUND else ", but not on the same cores"))


def schedule(rounds: list[dict[str, float]]) -> str:
    """What ten epochs of Google Landmarks would take at the rate of loader and step together."""
    hours = SCHEDULE / statistics.median(r["both"] for r in rounds) / 3600
    return f"10 epochs of 1,223,195 images with this network would take {hours:,.1f} hours here"


def picture(report: dict[str, Any]) -> str:
    """Rates as bars, least and most as whiskers, the network's as a line that the others should pass: SVG."""
    rates = {label: [r[name] for r in report["rounds"]] for name, label in PARTS.items()}
    middle = [statistics.median(values) for values in rates.values()]
    below = [m - min(values) for m, values in zip(middle, rates.values())]
    above = [max(values) - m for m, values in zip(middle, rates.values())]
    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 10}):
        figure = Figure(figsize=(7, 3), layout="constrained")
        axes = figure.subplots()
        axes.barh(list(rates), middle, xerr=[below, above], ecolor=INK, capsize=3,
                  color=[GRAY if label == PARTS["dali"] else BLUE for label in rates])
        axes.axvline(statistics.median(rates[PARTS["step"]]), color=INK, linestyle="--", linewidth=1)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(left=min(middle) / 3)
        axes.set_xlabel("images/s; the dashed line is what the network can take")
        axes.spines[["top", "right"]].set_visible(False)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()
