"""Measure a run's embedding: the val and test photos as queries, the train photos as gallery.

python evaluate.py --run runs/demo --data data/demo/dataset
python evaluate.py --run runs/demo --data data/demo/dataset --untrained   (ImageNet weights, for comparison)
python evaluate.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/first-place.yaml --ablate
python evaluate.py --run runs/demo --data data/demo/dataset --pipeline configs/pipelines/arcshard.yaml --gallery

Prints and writes RUN/eval.json: {split: {gap, gap_landmark_only, recall@1, map@100}}, and RUN/eval-details.json:
GAP's 95 % interval, longer lists, right answers at a share of false ones, the worst classes. With options the names
are eval-untrained, eval-ANSWERS, eval-TTA, eval-ANSWERS-with-RUN. recall@1 and map@100 are those of the embeddings,
whatever the answers. The embeddings stay in RUN/embeddings, where predict.py and report.py find them. --gallery writes
a page a split, RUN/gallery-SPLIT.html or gallery-ANSWERS-SPLIT.html: queries with their neighbors and answers after
each step.

Steps that compare with photos without landmark take those of the val and test splits; where these are queries too,
each half is judged by the other half's.
"""
import argparse
import json
from pathlib import Path

from arcshard.console import Parser, UserError, run
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from retrieval import Pipeline, evaluate, read_pipeline
from retrieval.run.embed import embed_all
from retrieval.run.gallery import gallery_page
from retrieval.run.model import Tta, add_answer_options, add_checkpoint, load_model, load_untrained
from retrieval.run.photos import Matcher
from retrieval.run.queries import GALLERY, query_splits, questions
from retrieval.submission import details
from retrieval.tuning import ablation, ablation_table
from shards import Dataset


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    data, out = args.data, args.run
    pipeline = read_pipeline(args.pipeline) if args.pipeline else Pipeline()
    runs = [out, *args.ensemble]
    models = [load_untrained(out)] if args.untrained else [load_model(run, args.checkpoint, args.tta) for run in runs]
    folders = [None] if args.untrained else runs
    embedded = [embed_all(model, data, folder) for model, folder in zip(models, folders, strict=True)]
    told = [*(["untrained"] if args.untrained else []), *([args.pipeline.stem] if args.pipeline else []),
            *([args.tta.name] if args.tta != Tta() else []),
            *(["with"] if args.ensemble else []), *(run.name for run in args.ensemble)]
    suffix = "".join(f"-{word}" for word in told)
    device, cache, results, more = models[0].device.type, models[0].cache, {}, {}
    photos = Dataset(data, GALLERY, cache)
    for split in query_splits(data, cache):
        dataset = Dataset(data, split, cache)
        asked = questions(models, embedded, split, dataset.truths(), Matcher(dataset, photos))
        try:
            found = evaluate(asked, pipeline, device)
            if args.ablate:
                print(ablation_table(split, ablation(asked, pipeline, device)))
            if args.gallery:
                page, who = out / f"gallery{suffix}-{split}.html", " ".join([out.name, *told])
                write_text(page, gallery_page(who, asked, pipeline, dataset, photos, device))
                print(f"{split:6}{page}")
        except ValueError as error:  # a step that lacks what it needs
            raise UserError(f"{args.pipeline or data}: {error}") from error
        results[split], more[split] = found.metrics, details(asked, found)
    for path, content in ((f"eval{suffix}.json", results), (f"eval-details{suffix}.json", more)):
        write_text(out / path, json.dumps(content, indent=2) + "\n")
    print(table(results))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder, or s3://… (read through the run's cache)")
    parser.add_argument("--untrained", action="store_true",
                        help="the run's backbone with its pretrained weights, average-pooled, without neck")
    add_checkpoint(parser)
    add_answer_options(parser)
    parser.add_argument("--ablate", action="store_true", help="print what each step of the answers gains")
    parser.add_argument("--gallery", action="store_true", help="write pages of queries and their answers step by step")
    args = parser.parse_args()
    if args.untrained and (args.ensemble or args.tta != Tta()):
        parser.error("--untrained measures one run as it is: leave out --ensemble and --tta")
    return args


def table(results: dict[str, dict[str, float]]) -> str:
    """A line a split, metrics in columns."""
    names = list(next(iter(results.values())))
    lines = [f"{'':6}" + "".join(f"{name:>20}" for name in names)]
    lines += [f"{split:6}" + "".join(f"{values[name]:20.4f}" for name in names) for split, values in results.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
