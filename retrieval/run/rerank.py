"""python -m retrieval rerank: fit a judge of the candidates that a run's answers have."""
import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcshard.console import Parser, UserError, progress
from arcshard.files import write_text
from retrieval import evaluate, read_pipeline
from retrieval.evaluation import QuerySet, by_half, final_states
from retrieval.metrics import Truths, is_true
from retrieval.pipeline import Pipeline, write_pipeline
from retrieval.reranker import FOLDS, Reranker, fold_of, import_lightgbm
from retrieval.run.embed import embed_all
from retrieval.run.model import add_answer_options, load_model
from retrieval.run.photos import Matcher
from retrieval.run.queries import GALLERY, query_splits, questions
from retrieval.steps import Rerank
from retrieval.steps.rerank import columns, first
from shards import Dataset

# Fitting a re-ranker to queries whose landmarks are known.

# 2nd place's (683f021, generate_submissions.ipynb), and what makes two fits equal.
PARAMETERS = {"objective": "multiclass", "learning_rate": 0.1, "num_leaves": 7, "max_depth": 3,
              "min_child_samples": 100, "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8,
              "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1}
ROUNDS, PATIENCE = 300, 50


def fit_reranker(asked: Sequence[QuerySet], pipeline: Pipeline, top: int = 3, seeds: int = 10, device: str = "cpu",
                 fitted: Callable[[], object] = lambda: None) -> Reranker:
    """A judge of the first `top` candidates that the pipeline finds for all these queries.

    2nd place fitted 5 folds × 10 seeds on 20,000 queries, four fifths of them without landmark. `fitted` is called
    after each of FOLDS × seeds boosters. Raises ValueError where a step, `columns` or `fit` does.
    """
    keys = [key for each in asked for key in each.keys]
    told = [told_and_right(each, pipeline, top, device) for each in asked]
    names = told[0][0]
    boosters = fit(np.concatenate([features for _, features, _ in told]),
                   np.concatenate([right for _, _, right in told]), keys, top, seeds, fitted)
    return Reranker(boosters, names, top, keys, write_pipeline(pipeline))


def told_and_right(asked: QuerySet, pipeline: Pipeline, top: int, device: str = "cpu"
                   ) -> tuple[list[str], NDArray[np.float64], NDArray[np.int64]]:
    """Names of the features, the features (Q, F) as `evaluate` would see them, and the candidate (Q,) that is right."""
    states = final_states(asked, pipeline, True, device)
    tables = [columns(state, top) for state in states]
    labels = by_half(asked, [first(state.candidates, top).labels for state in states])
    return (list(tables[0]), by_half(asked, [np.column_stack(list(table.values())) for table in tables]),
            targets(labels, asked.truths))


def fit(features: NDArray[np.float64], right: NDArray[np.int64], keys: Sequence[str], top: int, seeds: int = 10,
        fitted: Callable[[], object] = lambda: None) -> list[list[str]]:
    """Boosters by fold and seed. Those of fold f learn from all folds but f and the next, which tells when to stop.

    Args:
        features: (Q, F), NaN for no value.
        right: (Q,), the candidate that is right, `top` for none (`targets`).
        keys: Q sample keys; they tell the folds.
        fitted: called after each booster.

    2nd place stopped by the fold that it then judged, and took the five seeds that did best there. Equal inputs give
    equal boosters. Raises ValueError if a fold has no query.
    """
    fold = np.array([fold_of(key) for key in keys])
    if len(set(fold.tolist())) < FOLDS:
        raise ValueError(f"a re-ranker is fitted on {FOLDS} folds of queries, got {len(keys)}: give more")
    boosters: list[list[str]] = []
    for left_out in range(FOLDS):
        stop = fold == (left_out + 1) % FOLDS
        learn = ~stop & (fold != left_out)
        boosters.append([])
        for seed in range(seeds):
            boosters[-1].append(_fitted(features, right, learn, stop, {"num_class": top + 1, "seed": seed}))
            fitted()
    return boosters


def _fitted(features: NDArray[np.float64], right: NDArray[np.int64], learn: NDArray[np.bool_],
            stop: NDArray[np.bool_], parameters: dict[str, Any]) -> str:
    lightgbm = import_lightgbm()
    known = lightgbm.Dataset(features[learn], right[learn], params=PARAMETERS)
    booster = lightgbm.train(PARAMETERS | parameters, known, ROUNDS, [known.create_valid(features[stop], right[stop])],
                             callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)])
    return booster.model_to_string(num_iteration=booster.best_iteration)


def targets(labels: NDArray[np.int64], truths: Truths) -> NDArray[np.int64]:
    """(Q,): the first of the candidates (Q, top) that is right, top if none is."""
    return np.hstack([is_true(labels, truths), np.ones((len(labels), 1), bool)]).argmax(axis=1)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder or s3://…")
    parser.add_argument("--splits", nargs="+", help="whose queries to fit on; default: all val and test splits")
    parser.add_argument("--top", type=int, default=3, help="candidates of a query that are judged (default: 3)")
    parser.add_argument("--seeds", type=int, default=10, help=f"boosters of each of the {FOLDS} folds (default: 10)")
    parser.add_argument("--out", type=Path, required=True, metavar="YAML",
                        help="the steps of --pipeline and the judge; the judge itself lies beside it, as .json")
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
    before = read_pipeline(args.pipeline) if args.pipeline else Pipeline()
    asked, device = ask(args)
    try:
        with progress(total=FOLDS * args.seeds, unit="boosters", what="fit") as bar:
            judge = fit_reranker(list(asked.values()), before, args.top, args.seeds, device, lambda: bar.update())
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.pipeline or args.data}: {error}") from error
    model = args.out.with_suffix(".json")
    judge.save(model)
    write_text(args.out, write_pipeline(Pipeline((*before.steps, Rerank(model.name)))))
    after = read_pipeline(args.out)
    print(f"{args.out}, {model}: fitted on {len(judge.fitted_on):,} queries")
    for split, questions_of_split in asked.items():
        values = [evaluate(questions_of_split, pipeline, device).metrics["gap"] for pipeline in (before, after)]
        print(f"{split:6}GAP {values[0]:.4f} -> {values[1]:.4f} (each query judged by boosters that have not seen it)")


def ask(args: argparse.Namespace) -> tuple[dict[str, QuerySet], str]:
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
