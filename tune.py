"""Tune the numbers of a pipeline's steps on one split, to measure it on the others.

python tune.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/third-place.yaml --split val \
    --out tuned.yaml

Halves and doubles one number at a time (the weights of an ensemble's runs included) as long as GAP grows, writes the
pipeline as YAML, and prints GAP before and after on every val and test split. The gain on the split that it was tuned
on says little.
"""
import argparse
from pathlib import Path

from arcshard.console import Parser, UserError, progress, run
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from retrieval import evaluate
from retrieval.pipeline import write_pipeline
from retrieval.run.model import add_answer_options, load_model, pipeline_of, views_of
from retrieval.run.queries import open_queries, query_splits
from retrieval.tuning import tune


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    start, folders = pipeline_of(args), [args.run, *args.ensemble]
    models = [load_model(folder, tta=views_of(args)) for folder in folders]
    device, splits = models[0].device.type, query_splits(args.data, models[0].cache)
    if args.split not in splits:
        raise UserError(f"--split {args.split} has no queries: give one of {', '.join(splits)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    query_sets = open_queries(models, args.data, folders).sets
    try:
        with progress(unit="trials", what=f"tune on {args.split}") as bar:
            best, _ = tune(query_sets[args.split], start, device, lambda pipeline, value: bar.update())
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.pipeline or args.data}: {error}") from error
    write_text(args.out, write_pipeline(best))
    print(args.out.read_text(), end="")
    for split, queries in query_sets.items():
        before, after = (evaluate(queries, pipeline, device).metrics["gap"] for pipeline in (start, best))
        print(f"{split:6}GAP {before:.4f} -> {after:.4f}" + (" (tuned here)" if split == args.split else ""))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder or s3://…")
    parser.add_argument("--split", default="val", help="split whose queries to tune on (default: val)")
    parser.add_argument("--out", type=Path, required=True, help="YAML to write")
    add_answer_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
