"""What training gains on the demo: recall@1 and GAP before and after, over several seeds.

    python benchmarks/demo_seeds.py --data data/demo/dataset --unseen data/demo/unseen --out runs/demo-seeds

--unseen: a dataset of landmarks that training does not see, with a gallery of its own. Each seed is a run of its own
with configs/demo.yaml (weights of neck and head, order, views); photos and split stay. Runs that are finished are not
repeated.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from arcshard import checkpoint
from arcshard.console import Parser, UserError, run
from retrieval.run.embed import data_suffix
from shards import Dataset

ROOT = Path(__file__).parent.parent
METRICS = ("recall@1", "gap")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder of the demo")
    parser.add_argument("--unseen", type=Path, required=True, help="dataset folder of its unseen landmarks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs, one a seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    args = parser.parse_args()
    results = [train_and_evaluate(args, seed) for seed in args.seeds]
    for split in results[0]["trained"]:
        for metric in METRICS:
            print(line(split, metric, results))


def train_and_evaluate(args: argparse.Namespace, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """{untrained, trained: {split: {metric: value}}} of one seed's run."""
    folder = args.out / f"seed-{seed}"
    config = ROOT / "configs" / "demo.yaml"
    command("train.py", "--config", config, "--data", args.data, "--out", folder, "--train.seed", seed)
    for data in (args.data, args.unseen):
        command("evaluate.py", "--run", folder, "--data", data)
        command("evaluate.py", "--run", folder, "--data", data, "--untrained")
    found = {"trained": scores(folder / "eval.json"), "untrained": scores(folder / "eval-untrained.json")}
    suffix = data_suffix(checkpoint.load(folder).trained_on, Dataset(args.unseen, "train"))
    for when, stem in (("trained", f"eval{suffix}"), ("untrained", f"eval{suffix}-untrained")):
        found[when]["unseen"] = scores(folder / f"{stem}.json")["test"]
    return found


def scores(path: Path) -> dict[str, dict[str, float]]:
    return json.loads(path.read_text())


def command(page: str, *words: object) -> None:
    done = subprocess.run([sys.executable, ROOT / page, *map(str, words)])
    if done.returncode:
        raise UserError(f"{page} ended with exit code {done.returncode}: see its message above")


def line(split: str, metric: str, results: list[dict[str, dict[str, dict[str, float]]]]) -> str:
    before, after = ([result[when][split][metric] for result in results] for when in ("untrained", "trained"))
    gains = [b - a for a, b in zip(before, after)]
    return (f"{split:7}{metric:10}untrained {statistics.median(before):.3f}   trained {statistics.median(after):.3f} "
            f"({min(after):.3f} to {max(after):.3f})   gain {statistics.median(gains):+.3f}, least {min(gains):+.3f}, "
            f"n = {len(results)}")


if __name__ == "__main__":
    run(main)
