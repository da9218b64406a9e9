"""Find the numbers of answers' steps on one split, to measure on another.

python tune.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/third-place.yaml --split val \
    --out tuned.yaml

Halves and doubles one number at a time (weights of an ensemble's runs included) as long as GAP grows, writes the steps
found as YAML, and prints GAP before and after on every val and test split. What is gained on the split that it was
tuned on says little.
"""
import argparse
from pathlib import Path

from arcshard.console import Parser, UserError, progress, run
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from retrieval import Pipeline, evaluate, read_pipeline
from retrieval.pipeline import write_pipeline
from retrieval.run.embed import embed_all
from retrieval.run.model import add_answer_options, load_model
from retrieval.run.photos import Matcher
from retrieval.run.queries import GALLERY, query_splits, questions
from retrieval.tuning import tune
from shards import Dataset


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    start = read_pipeline(args.pipeline) if args.pipeline else Pipeline()
    models = [load_model(folder, tta=args.tta) for folder in (args.run, *args.ensemble)]
    cache = models[0].cache
    splits = query_splits(args.data, cache)
    if args.split not in splits:
        raise UserError(f"--split must be one with queries ({', '.join(splits)}); got {args.split}")
    embedded = [embed_all(model, args.data, folder) for model, folder in zip(models, (args.run, *args.ensemble))]
    queries = {split: Dataset(args.data, split, cache) for split in splits}
    gallery = Dataset(args.data, GALLERY, cache)
    asked = {split: questions(models, embedded, split, dataset.truths(), Matcher(dataset, gallery))
             for split, dataset in queries.items()}
    device = models[0].device.type
    try:
        with progress(unit="trials", what=f"tune on {args.split}") as bar:
            best, _ = tune(asked[args.split], start, device, lambda pipeline, value: bar.update())
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.pipeline or args.data}: {error}") from error
    write_text(args.out, write_pipeline(best))
    print(args.out.read_text(), end="")
    for split in splits:
        before, after = (evaluate(asked[split], pipeline, device).metrics["gap"] for pipeline in (start, best))
        print(f"{split:6}GAP {before:.4f} -> {after:.4f}" + (" (tuned here)" if split == args.split else ""))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder or s3://…")
    parser.add_argument("--split", default="val", help="whose queries to tune on; default: val")
    parser.add_argument("--out", type=Path, required=True, help="YAML to write")
    add_answer_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
