"""What gradient accumulation does to BatchNorm: the demo trained with its batches cut into micro-batches.

    python docs/studies/accumulation.py --data data/demo/dataset --out runs/accumulation [--seeds 0 1 2] [--epochs 4]

All variants see the same images in the same order, 32 in an update unless the name says otherwise. Each seed is a run
of its own with configs/demo.yaml, all layers at one rate; finished runs are not repeated. Prints the table of
docs/accumulation-and-batchnorm.md.
"""
import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from study import ROOT, command, median_range

from arcshard.console import Parser, run
from training import log

LEARNED, FROZEN = ("--train.batchnorm", "learned"), ("--train.batchnorm", "frozen")
NO_NORM = (*FROZEN, "--model.neck", "swish")  # then nothing depends on which images share a batch
VARIANTS: dict[str, Sequence[str]] = {
    "1 × 32": LEARNED,
    "4 × 8": (*LEARNED, "--train.micro_batch", "8"),
    "8 × 4": (*LEARNED, "--train.micro_batch", "4"),
    "16 × 2": (*LEARNED, "--train.micro_batch", "2"),
    "1 × 32, frozen": FROZEN,
    "16 × 2, frozen": (*FROZEN, "--train.micro_batch", "2"),
    "1 × 8, a quarter of the learning rate": (*LEARNED, "--train.global_batch", "8", "--train.lr", "0.025"),
    "1 × 32, frozen, neck without BatchNorm": NO_NORM,
    "16 × 2, frozen, neck without BatchNorm": (*NO_NORM, "--train.micro_batch", "2"),
}
LAST = 0.1  # share of the run whose losses are averaged


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of the demo")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--epochs", type=float, default=4, help="default: 4")
    args = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in args.seeds:
        for number, (name, options) in enumerate(VARIANTS.items()):
            results[name].append(outcome(args, args.out / f"{number}-seed-{seed}", seed, options))
    print(table(results))


def outcome(args: argparse.Namespace, folder: Path, seed: int, options: Sequence[str]) -> dict[str, float]:
    """The loss at the end of the run, and what its embedding answers."""
    command("train.py", "--config", ROOT / "configs" / "demo.yaml", "--data", args.data, "--out", folder,
            "--train.seed", seed, "--train.epochs", args.epochs, "--train.layer_decay", 1, *options)
    command("evaluate.py", "--run", folder, "--data", args.data)
    answers = json.loads((folder / "eval.json").read_text())
    lines = log.read(folder)
    last = [line["loss"] for line in lines if line["position"] > (1 - LAST) * lines[-1]["position"]]
    return {"loss": statistics.mean(last), "recall@1": answers["val"]["recall@1"], "gap": answers["test"]["gap"]}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """A Markdown table: a row a variant, median (least to most) over the seeds."""
    lines = ["| micro-batches × images | loss at the end | recall@1 of val | GAP of test |", "|---|---|---|---|"]
    for name, seeds in results.items():
        cells = [median_range([result[what] for result in seeds], form)
                 for what, form in (("loss", ".2f"), ("recall@1", ".3f"), ("gap", ".3f"))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
