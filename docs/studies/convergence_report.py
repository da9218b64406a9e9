"""The convergence study's tables and figures."""
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from convergence_arms import BASELINE, UNTRAINED, Task
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from study import median_range

from arcshard.files import whole_file
from pages.charts import BLUE, INK, STYLE

Run = dict[str, Any]
Runs = dict[str, dict[int, Run]]
"""{arm: {seed: what convergence_run.train found}}."""
HEADER = ("| what | recall@1, nearest photo | paired difference | recall@1, nearest center | loss | target cosine | "
          "to nearest wrong center | dead centers | off the plateau |\n" + "|---" * 9 + "|")
ORANGE = "#c4501b"


def table(task: Task, runs: Runs) -> str:
    """Markdown: a row an arm that has runs; median (least to most, n)."""
    rows = [f"| {name} | {' | '.join(cells(task, runs, name))} |" for name in task.arms if runs[name]]
    return "\n".join([HEADER, *rows])


def cells(task: Task, runs: Runs, name: str) -> list[str]:
    """One arm's figures: of val, but for the loss and the plateau."""
    of_arm = list(runs[name].values())
    column = lambda what: [run[what] for run in of_arm]
    against = task.arms[name].against
    gains = paired(runs[against], runs[name], "nearest_photo")
    off = [run["off_plateau"] for run in of_arm if run["off_plateau"] is not None]
    return [
        median_range(column("nearest_photo"), ".3f"),
        "" if name == against or not gains else f"{mean_and_deviation(gains)} to {against}",
        median_range(column("nearest_center"), ".3f"),
        f"{statistics.median(map(last_loss, of_arm)):.1f} ({reference_text(of_arm[0])})",
        f"{statistics.median(column('target_cosine')):.2f}",
        f"{math.degrees(statistics.median(column('wrong_angle'))):.0f}°",
        f"{statistics.median(column('dead_centers')):.0%}",
        f"epoch {statistics.median(off):.1f} ({len(off)} of {len(of_arm)})" if off else f"never ({len(of_arm)})"]


def last_loss(run: Run) -> float:
    """Mean of the lines of the last tenth of the run."""
    lines = run["lines"]
    return statistics.mean(line["loss"] for line in lines if line["epoch"] > 0.9 * lines[-1]["epoch"])


def reference_text(run: Run) -> str:
    return f"{run['uniform']:.1f}, {run['untrained']:.1f}, {run['collapsed']:.1f}"


def paired(before: Mapping[int, Run], after: Mapping[int, Run], what: str) -> list[float]:
    """Differences after − before of the seeds that both have."""
    return [after[seed][what] - before[seed][what] for seed in sorted(before.keys() & after.keys())]


def mean_and_deviation(values: list[float]) -> str:
    """+0.012 ± 0.003: mean and standard deviation of a sample; without the latter for a single value."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+.3f}{deviation}"


def draw(task: Task, runs: Runs, path: Path) -> None:
    """Recall@1 of all runs of a task above the losses of some."""
    with matplotlib.rc_context(STYLE):
        rows = 0.25 * len(runs)
        figure = Figure(figsize=(8, 1.2 + rows + 3.6), layout="constrained")
        upper, lower = figure.subplots(2, height_ratios=[rows, 3.6])
        dots(upper, task, runs)
        curves(lower, task, runs)
        with whole_file(path) as f:
            figure.savefig(f, format="png", dpi=100, metadata={"Software": None})


def dots(axes: Axes, task: Task, runs: Runs) -> None:
    """An arm a row, from the top: a point a seed, by the nearest photo and by the nearest center."""
    names = [name for name in task.arms if runs[name]]
    for what, color, label in (("nearest_photo", BLUE, "nearest photo"), ("nearest_center", ORANGE, "nearest center")):
        points = [(run[what], row) for row, name in enumerate(names) for run in runs[name].values()]
        axes.scatter([x for x, _ in points], [y for _, y in points], s=22, color=color, alpha=0.75, label=label,
                     linewidths=0)
    for name, style in ((BASELINE, "-"), (UNTRAINED, ":")):
        if runs.get(name):
            level = statistics.median(run["nearest_photo"] for run in runs[name].values())
            axes.axvline(level, color=INK, linestyle=style, linewidth=0.9, label=f"{name}, nearest photo")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("recall@1 of val")
    legend(axes)


def curves(axes: Axes, task: Task, runs: Runs) -> None:
    """Losses of the first seed of the arms in task.curves; dotted what each would be if all pointed one way."""
    for number, name in enumerate(name for name in task.curves if runs.get(name)):
        lines = runs[name][min(runs[name])]["lines"]
        epochs = [line["epoch"] for line in lines]
        axes.plot(epochs, [line["loss"] for line in lines], color=f"C{number}", linewidth=1.4, label=name)
        axes.plot(epochs, [line["collapsed"] for line in lines], color=f"C{number}", linewidth=0.9, linestyle=":")
    axes.set_yscale("log")
    axes.set_yticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss; dotted: all point one way")
    legend(axes)


def legend(axes: Axes) -> None:
    """Above the panel, where it hides nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, ncols=2, frameon=False)
