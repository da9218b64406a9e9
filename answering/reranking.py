"""python -m retrieval rerank: fit a judge of the candidates that a run's answers have."""
import argparse
from pathlib import Path

from answering.embedding import embed_all
from answering.matching import Matcher
from answering.options import add_answer_options
from answering.questions import GALLERY, query_splits, questions
from answering.run_model import load_model
from arcshard.console import UserError, progress
from arcshard.files import write_text
from retrieval import Pipeline, Questions, evaluate, read_pipeline
from retrieval.pipeline import write_pipeline
from retrieval.rerank_fitting import fit_reranker
from retrieval.reranker import FOLDS, import_lightgbm
from retrieval.steps import Rerank
from shards import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder or s3://…")
    parser.add_argument("--splits", nargs="+", help="whose queries to fit on; default: all val and test splits")
    parser.add_argument("--top", type=int, default=3, help="candidates of a query that are judged (default: 3)")
    parser.add_argument("--seeds", type=int, default=10, help=f"boosters of each of the {FOLDS} folds (default: 10)")
    parser.add_argument("--out", type=Path, required=True, metavar="YAML",
                        help="the steps of --answers and the judge; the judge itself lies beside it, as .json")
    add_answer_options(parser)


def rerank(args: argparse.Namespace) -> None:
    """Write the judge and the steps; print GAP of queries before, and after by boosters that have not seen them."""
    for name in ("top", "seeds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    if args.out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out must end in .yaml, since the judge lies beside it as .json; got {args.out}")
    import_lightgbm()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    before = read_pipeline(args.answers) if args.answers else Pipeline()
    asked, device = ask(args)
    try:
        with progress(total=FOLDS * args.seeds, unit="boosters", what="fit") as bar:
            judge = fit_reranker(list(asked.values()), before, args.top, args.seeds, device, lambda: bar.update())
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.answers or args.data}: {error}") from error
    model = args.out.with_suffix(".json")
    judge.save(model)
    write_text(args.out, write_pipeline(Pipeline((*before.steps, Rerank(model.name)))))
    after = read_pipeline(args.out)
    print(f"{args.out}, {model}: fitted on {len(judge.fitted_on):,} queries")
    for split, questions_of_split in asked.items():
        values = [evaluate(questions_of_split, pipeline, device).metrics["gap"] for pipeline in (before, after)]
        print(f"{split:6}GAP {values[0]:.4f} -> {values[1]:.4f} (each query judged by boosters that have not seen it)")


def ask(args: argparse.Namespace) -> tuple[dict[str, Questions], str]:
    """The splits' questions, and the device to answer them on."""
    runs = (args.run, *args.ensemble)
    models = [load_model(folder, tta=args.tta) for folder in runs]
    cache = models[0].cache
    known = query_splits(args.data, cache)
    wrong = sorted(set(args.splits or known) - set(known))
    if wrong:
        raise UserError(f"--splits must be some with queries ({', '.join(known)}); got {', '.join(wrong)}")
    embedded = [embed_all(model, args.data, folder) for model, folder in zip(models, runs, strict=True)]
    gallery = Dataset(args.data, GALLERY, cache)
    queries = {split: Dataset(args.data, split, cache) for split in args.splits or known}
    return {split: questions(models, embedded, split, dataset.truths(), Matcher(dataset, gallery))
            for split, dataset in queries.items()}, models[0].device.type
