"""What keeps ArcFace from converging, and what helps: short runs that differ from a baseline in one thing or several.

    python docs/studies/convergence.py --data data/demo/dataset --out runs/convergence [--tasks demo] [--seeds 0 1 2]

demo: the demo's landmarks from ImageNet weights. views: every photo is a class, its images are random views, and the
network begins from random weights. vit, convnext: the same with two networks that get stuck elsewhere. All runs of a
task and a seed see the same images in the same order. Each run is a JSON file in --out and is not repeated, so that the
study can be stopped, continued and extended. At the end it prints the tables and draws the figures of
docs/arcface-convergence.md from the runs that are there.
"""
import json
from pathlib import Path

import torch
from convergence_arms import TASKS, Task, setting
from convergence_report import Runs, draw, table
from convergence_run import load, train

from arcshard.console import Parser, UserError, progress, run
from arcshard.files import write_text


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of the demo")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, the tables and the figures")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="default: 0 1 2; none: tables alone")
    args = parser.parse_args()
    torch.set_num_threads(1)  # so that sums are the same on any machine
    for seed in args.seeds:
        for name in args.tasks:
            run_arms(args.data, args.out / name, TASKS[name], seed)
    runs = {name: read(args.out / name, TASKS[name]) for name in args.tasks}
    if not any(any(of_task.values()) for of_task in runs.values()):
        raise UserError(f"there are no runs in {args.out}: give --seeds to make some")
    for name, of_task in runs.items():
        print(f"\n{name}\n\n{table(TASKS[name], of_task)}")
        if TASKS[name].curves:
            draw(TASKS[name], of_task, args.out / f"arcface-convergence-{name}.png")


def run_arms(data: Path, out: Path, task: Task, seed: int) -> None:
    """Those of a seed's runs that are not there yet."""
    missing = [name for name in task.arms if not file_of(out, name, seed).exists()]
    if not missing:
        return
    out.mkdir(parents=True, exist_ok=True)
    photos = load(data, task, seed)
    for name in progress(missing, unit="runs", what=f"{out.name}, seed {seed}"):
        if not file_of(out, name, seed).exists():  # another process may work on the same
            found = train(setting(task.baseline, task.arms[name].changes), photos, seed)
            write_text(file_of(out, name, seed), json.dumps(found, indent=1))


def read(out: Path, task: Task) -> Runs:
    """{arm: {seed: what `train` found}} of the runs that are there."""
    return {name: {int(file.stem.rpartition("-")[2]): json.loads(file.read_text())
                   for file in sorted(out.glob(file_of(out, name, "*").name))} for name in task.arms}


def file_of(out: Path, arm: str, seed: int | str) -> Path:
    words = "".join(c if c.isalnum() or c == "." else " " for c in arm).split()
    return out / f"{'-'.join(words)}-seed-{seed}.json"


if __name__ == "__main__":
    run(main)
