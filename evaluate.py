"""Measure a run's embedding: the val and test photos as queries, the train photos as gallery.

python evaluate.py --run runs/demo --data data/demo/dataset
python evaluate.py --run runs/demo --data data/demo/dataset --untrained   (ImageNet weights, for comparison)
python evaluate.py --run runs/demo --data data/demo/dataset --size 160   (larger images than in training)
python evaluate.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/first-place.yaml --ablate
python evaluate.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/arcshard.yaml --gallery

Prints and writes RUN/eval.json: {split: {gap, gap_landmark_only, recall@1, map@100}}, and RUN/eval-details.json:
the size of the images, GAP's 95 % interval, longer lists, right answers at a share of false ones, the worst classes.
RUN/no-landmark.json holds the score up to which predict.py and the web page say "probably no landmark": --false-answers
is the share of photos without landmark that may be answered all the same, fitted on half of them and measured on the
other half. Options change the names: eval-untrained, eval-PIPELINE, eval-512px, eval-TTA, eval-PIPELINE-with-RUN. So do
data that the run was not trained on: eval-NAME-<8 digits of their fingerprint>, embeddings/NAME-<8 digits>. recall@1
and map@100 are those of the embeddings, whatever the pipeline. The embeddings are kept in RUN/embeddings, where
predict.py and report.py find them. --gallery writes a page for each split, RUN/gallery-SPLIT.html or
gallery-PIPELINE-SPLIT.html: queries with their neighbors and answers after each step.

Steps that compare with photos without landmark take those of the val and test splits. Where these are queries too, the
queries are cut into two halves, and each half is compared with the non-landmarks of the other.
"""
import argparse
import json
from pathlib import Path

import numpy as np

from arcshard.console import Parser, UserError, command_of, run
from arcshard.files import folder_lock, write_text
from arcshard.memory import keep_freed_memory
from retrieval import Candidates, Pipeline, evaluate
from retrieval.evaluation import details, mean_precision
from retrieval.no_landmark import FILE, fit_threshold, save_threshold
from retrieval.run.embed import data_suffix, provenance_of
from retrieval.run.gallery import gallery_page
from retrieval.run.model import (
    RunModel,
    Tta,
    add_answer_options,
    add_checkpoint,
    load_model,
    load_untrained,
    pipeline_of,
    views_of,
)
from retrieval.run.queries import OpenQueries, open_queries
from retrieval.tuning import ablation, ablation_table


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    pipeline = pipeline_of(args)
    folders: list[Path | None] = [None] if args.untrained else [args.run, *args.ensemble]
    models = ([load_untrained(args.run, views_of(args))] if args.untrained else
              [load_model(run, args.checkpoint, views_of(args)) for run in (args.run, *args.ensemble)])
    for folder, model in zip((args.run, *args.ensemble), models):
        print(f"{folder}: {size_of(model)}", flush=True)
    opened = open_queries(models, args.data, folders)
    other_data = data_suffix(models[0].trained_on, opened.gallery)
    suffix = "-".join([other_data, *variant_of(args, models)])
    lock = args.run / f".eval{suffix}.lock"  # other options write other files, and may be evaluated meanwhile
    lock.touch()
    with folder_lock(lock):
        measure(args, pipeline, models, opened, suffix)
    path = args.run / f"eval{suffix}.json"
    print(f"{args.run} was trained on other data: these figures are in {path}" if other_data else f"figures: {path}")
    print("next:")
    print(" ", command_of("report", "--run", args.run, "--data", args.data))
    if not args.untrained:
        print(" ", command_of("predict", "--run", args.run, "--index", args.data, "photo.jpg"))


def measure(args: argparse.Namespace, pipeline: Pipeline, models: list[RunModel], opened: OpenQueries, suffix: str
            ) -> None:
    """Print and write what the pipeline's answers are worth. Raises UserError for a step that lacks what it needs."""
    device = models[0].device.type
    results, more, answers = {}, {}, {}
    for split, queries in opened.sets.items():
        try:
            found = evaluate(queries, pipeline, device)
            if args.ablate:
                print(ablation_table(split, ablation(queries, pipeline, device)))
            if args.gallery:
                page = args.run / f"gallery{suffix}-{split}.html"
                who = " ".join([args.run.name, *variant_of(args, models)])
                write_text(page, gallery_page(who, queries, pipeline, opened.photos[split], opened.gallery, device))
                print(f"{split:6}{page}")
        except ValueError as error:
            raise UserError(f"{args.pipeline or args.data}: {error}") from error
        if found.ranked_labels is not None:
            print(f"{split:6}map@100 {mean_precision(queries, found.ranked_labels):.4f} of the neighbors that the "
                  f"steps leave, {found.metrics['map@100']:.4f} of the embeddings")
        results[split], answers[split] = found.metrics, found.candidates
        more[split] = {"sizes": [model.size for model in models], **details(queries, found)}
    for name, content in (("eval", results), ("eval-details", more)):
        write_text(args.run / f"{name}{suffix}.json", json.dumps(content, indent=2) + "\n")
    print(table(results))
    if not args.untrained:  # nobody answers with that
        fit_no_landmark(args, pipeline, models, opened, answers, suffix)


def fit_no_landmark(args: argparse.Namespace, pipeline: Pipeline, models: list[RunModel], opened: OpenQueries,
                    answers: dict[str, Candidates], suffix: str) -> None:
    """Write and print the threshold for "probably no landmark", if there are photos without landmark to fit it on."""
    sets = opened.sets.values()
    threshold = fit_threshold(np.concatenate([found.answers for found in answers.values()]),
                              np.concatenate([found.confidences for found in answers.values()]),
                              [truth for queries in sets for truth in queries.truths],
                              [key for queries in sets for key in queries.keys], args.false_answers)
    if threshold:
        save_threshold(args.run / f"{FILE}{suffix}.json", threshold, pipeline,
                       [provenance_of(model, opened.gallery) for model in models])
        print(threshold)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder, or s3://… (read through the run's cache)")
    parser.add_argument("--untrained", action="store_true",
                        help="the run's backbone with its pretrained weights, average-pooled, without neck")
    add_checkpoint(parser)
    add_answer_options(parser)
    parser.add_argument("--ablate", action="store_true", help="print what each step of the pipeline gains")
    parser.add_argument("--gallery", action="store_true", help="write a page of queries and answers for each split")
    parser.add_argument("--false-answers", type=float, default=0.05, metavar="SHARE",
                        help="of photos without landmark that may be answered (default: 0.05)")
    args = parser.parse_args()
    if not 0 <= args.false_answers < 1:
        parser.error(f"--false-answers is {args.false_answers}: give a share of at least 0 and below 1")
    if args.untrained and (args.ensemble or args.tta != Tta()):
        parser.error("--untrained measures one run as it is: leave out --ensemble and --tta")
    return args


def size_of(model: RunModel) -> str:
    """The size of the images, for people."""
    return f"{model.size} pixels" + (f", trained at {model.trained_size}" if model.size != model.trained_size else "")


def variant_of(args: argparse.Namespace, models: list[RunModel]) -> list[str]:
    """What tells the files of these options from those of the run alone: words of their names."""
    resized = any(model.size != model.trained_size for model in models)
    return [*(["untrained"] if args.untrained else []), *([args.pipeline.stem] if args.pipeline else []),
            *([f"{args.size}px"] if resized else []), *([args.tta.name] if args.tta != Tta() else []),
            *(["with", *(run.name for run in args.ensemble)] if args.ensemble else [])]


def table(results: dict[str, dict[str, float]]) -> str:
    """A line a split, metrics in columns."""
    names = list(next(iter(results.values())))
    lines = [f"{'':6}" + "".join(f"{name:>20}" for name in names)]
    lines += [f"{split:6}" + "".join(f"{values[name]:20.4f}" for name in names) for split, values in results.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
