"""Which runs of the convergence study train.py would have warned of, and which of them were stuck.

    python docs/studies/convergence_warned.py --data data/demo/dataset --runs runs/convergence

A run of the demo's landmarks is stuck if it ends with less than LEARNING_SHARE of val nearest to its own center. The
views have none: such runs were only slow (docs/arcface-convergence.md). untrained is left out: it must not learn.
"""
import math
from collections import Counter
from pathlib import Path

from convergence import read
from convergence_arms import TASKS, UNTRAINED, Setting, Task, setting
from convergence_report import Run, Runs
from convergence_run import LEARNING_SHARE, apply_faults

from arcshard.console import Parser, UserError, run
from loader import Batch, Loader
from model import build_embedder
from model.augment import prepare
from shards import Dataset
from training.monitor import is_stuck, odd_input, resting_level


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of the demo")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the study's runs (--out there)")
    args = parser.parse_args()
    runs = {name: read(args.runs / name, task) for name, task in TASKS.items()}
    if not any(any(of_task.values()) for of_task in runs.values()):
        raise UserError(f"there are no runs in {args.runs}: make them with docs/studies/convergence.py")
    print("| task | runs | because of the input | because of the loss | none |\n|---|---|---|---|---|")
    for name, task in TASKS.items():
        print("\n".join(rows(name, count(args.data, task, runs[name]))))


def rows(task: str, counts: Counter[tuple[str, str]]) -> list[str]:
    """Markdown: how many of the stuck and of the other runs were warned of, and why."""
    return [f"| {task} | {state} | " + " | ".join(str(counts[state, why]) for why in ("input", "loss", "none")) + " |"
            for state in ("stuck", "others") if any(key[0] == state for key in counts)]


def count(data: Path, task: Task, runs: Runs) -> Counter[tuple[str, str]]:
    """Runs by what became of them, stuck or others, and by why they would be warned of: input, loss or none."""
    firsts = {seed: first_batch(data, task, seed) for seed in {seed for of_arm in runs.values() for seed in of_arm}}
    return Counter((state(task, found), warning(setting(task.baseline, task.arms[name].changes), found, firsts[seed]))
                   for name, of_arm in runs.items() if name != UNTRAINED for seed, found in of_arm.items())


def first_batch(data: Path, task: Task, seed: int) -> Batch:
    """What all runs of a seed see first."""
    c = setting(task.baseline).train
    return next(iter(Loader(Dataset(data, "train"), batch_size=c.global_batch, size=c.size, view=task.view, seed=seed,
                            num_threads=1)))


def state(task: Task, found: Run) -> str:
    return "stuck" if not task.classes_are_photos and found["nearest_center"] < LEARNING_SHARE else "others"


def warning(made: Setting, found: Run, first: Batch) -> str:
    """What of train.py's two tests comes first: input at the first line, loss at any; none if neither does."""
    embedder = build_embedder(made.model)
    apply_faults(made.fault, embedder)
    pixels = prepare(first.images, first.jitter, embedder.mean, embedder.std)
    if odd_input(float(pixels.mean()), float(pixels.std())):
        return "input"
    lines, classes = found["lines"], round(math.exp(found["uniform"]))
    losses = [line["loss"] for line in lines]
    levels = [resting_level(classes, line["collapsed"], made.head.easy_margin).loss for line in lines]
    return "loss" if any(is_stuck(losses[:n], level) for n, level in enumerate(levels, 1)) else "none"


if __name__ == "__main__":
    run(main)
