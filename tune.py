"""Tune the numbers of a pipeline's steps on one split, to measure it on the others.

python tune.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/third-place.yaml --split val \
    --out tuned.yaml
python tune.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/arcshard.yaml \
    --against configs/pipelines/*.yaml --non-landmarks --passes 0 --out best.yaml

Halves and doubles one number at a time (the weights of an ensemble's runs included; what is null stays) as long as GAP
grows, writes the pipeline as YAML, and prints GAP before and after on every val and test split. The gain on the queries
that it was tuned on says little.

A split whose photos all show landmarks favors lists that are wrong for other photos. --non-landmarks adds half of the
photos without landmark of the other splits to what is tuned on, and prints GAP on the rest. --against compares lists
first, and goes on with the best; with --passes 0 that is all.
"""
import argparse
from pathlib import Path

import numpy as np

from arcshard.console import Parser, UserError, check_least, progress, run
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from retrieval import Pipeline, evaluate, read_pipeline
from retrieval.pipeline import write_pipeline
from retrieval.run.model import add_answer_options, load_model, pipeline_of, views_of
from retrieval.run.queries import open_queries, query_splits
from retrieval.tuning import PASSES, Part, gap_of, halves_of_non_landmarks, tune


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    start, folders = pipeline_of(args), [args.run, *args.ensemble]
    lists = {str(args.pipeline or "five voters"): start, **{str(path): read_pipeline(path) for path in args.against}}
    models = [load_model(folder, tta=views_of(args)) for folder in folders]
    device, splits = models[0].device.type, query_splits(args.data, models[0].cache)
    if args.split not in splits:
        raise UserError(f"--split {args.split} has no queries: give one of {', '.join(splits)}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sets = open_queries(models, args.data, folders).sets
    try:
        parts, rest = (halves_of_non_landmarks(sets, args.split) if args.non_landmarks else
                       ([Part(sets[args.split], np.full(len(sets[args.split].keys), True))], []))
        start = best_of(lists, parts, device) if len(lists) > 1 else start
        with progress(unit="trials", what=f"tune on {args.split}", delay=0) as bar:
            best, _ = tune(parts, start, device, lambda pipeline, value: bar.update(), args.passes)
        write_text(args.out, write_pipeline(best))
        print(args.out.read_text(), end="")
        for split, queries in sets.items():
            before, after = (evaluate(queries, pipeline, device).metrics["gap"] for pipeline in (start, best))
            print(f"{split:6}GAP {before:.4f} -> {after:.4f}" + (" (tuned here)" if split == args.split else ""))
        if rest:
            for what, listed in (("tuned", parts), ("others", rest)):
                before, after = (gap_of(listed, pipeline, device) for pipeline in (start, best))
                print(f"{what:6} GAP {before:.4f} -> {after:.4f} ({sum(part.mask.sum() for part in listed):,} queries)")
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.pipeline or args.data}: {error}") from error


def best_of(lists: dict[str, Pipeline], parts: list[Part], device: str) -> Pipeline:
    """The list of greatest GAP, the first of equals; prints that of each."""
    values = {name: gap_of(parts, pipeline, device) for name, pipeline in lists.items()}
    for name, value in sorted(values.items(), key=lambda item: -item[1]):
        print(f"GAP {value:.4f}  {name}", flush=True)
    return lists[max(values, key=values.__getitem__)]


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder or s3://…")
    parser.add_argument("--split", default="val", help="split whose queries to tune on (default: val)")
    parser.add_argument("--non-landmarks", action="store_true",
                        help="tune on half of the other splits' photos without landmark as well")
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="YAML",
                        help="further lists, of which and of --pipeline the best is tuned")
    parser.add_argument("--passes", type=int, default=PASSES,
                        help=f"rounds over all numbers, at most; 0 changes none (default: {PASSES})")
    parser.add_argument("--out", type=Path, required=True, help="YAML to write")
    add_answer_options(parser)
    args = parser.parse_args()
    check_least(args, 0, "passes")
    return args


if __name__ == "__main__":
    run(main)
