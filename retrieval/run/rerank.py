"""python -m retrieval rerank: fit a re-ranker to queries whose landmarks are known."""
import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcshard.console import Parser, UserError, check_least, progress
from arcshard.files import write_text
from retrieval import evaluate, read_pipeline
from retrieval.evaluation import QuerySet, by_half, final_states
from retrieval.metrics import Truths, is_true
from retrieval.pipeline import Pipeline, write_pipeline
from retrieval.reranker import FOLDS, Reranker, fold_of, import_lightgbm
from retrieval.run.model import add_answer_options, load_model, pipeline_of, views_of
from retrieval.run.queries import open_queries, query_splits
from retrieval.steps import Rerank
from retrieval.steps.rerank import features_of, first_candidates

# 2nd place's (683f021, generate_submissions.ipynb), and what makes two fits equal.
PARAMETERS = {"objective": "multiclass", "learning_rate": 0.1, "num_leaves": 7, "max_depth": 3,
              "min_child_samples": 100, "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8,
              "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1}
ROUNDS, PATIENCE = 300, 50


def fit_reranker(query_sets: Sequence[QuerySet], pipeline: Pipeline, top: int = 3, seeds: int = 10,
                 device: str = "cpu", fitted: Callable[[], object] = lambda: None) -> Reranker:
    """A re-ranker of the first `top` candidates that the pipeline finds for all these queries.

    2nd place fitted 5 folds × 10 seeds on 20,000 queries, four fifths of them without landmark. `fitted` is called
    after each of FOLDS × seeds boosters. Raises ValueError where a step, `features_of` or `fit` does.
    """
    keys = [key for queries in query_sets for key in queries.keys]
    tables = [features_and_targets(queries, pipeline, top, device) for queries in query_sets]
    names = tables[0][0]
    boosters = fit(np.concatenate([features for _, features, _ in tables]),
                   np.concatenate([right for _, _, right in tables]), keys, top, seeds, fitted)
    return Reranker(boosters, names, top, keys, write_pipeline(pipeline))


def features_and_targets(queries: QuerySet, pipeline: Pipeline, top: int, device: str = "cpu"
                         ) -> tuple[list[str], NDArray[np.float64], NDArray[np.int64]]:
    """Names of the features, the features (Q, F) as `evaluate` would see them, and the candidate (Q,) that is right."""
    states = final_states(queries, pipeline, True, device)
    tables = [features_of(state, top) for state in states]
    labels = by_half(queries, [first_candidates(state.candidates, top).labels for state in states])
    return (list(tables[0]), by_half(queries, [np.column_stack(list(table.values())) for table in tables]),
            targets(labels, queries.truths))


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
    parser.add_argument("--splits", nargs="+", help="whose queries to fit on (default: all val and test splits)")
    parser.add_argument("--top", type=int, default=3, help="candidates to re-rank for each query (default: 3)")
    parser.add_argument("--seeds", type=int, default=10, help=f"boosters of each of the {FOLDS} folds (default: 10)")
    parser.add_argument("--out", type=Path, required=True, metavar="YAML",
                        help="pipeline to write: --pipeline and the re-ranker, which is stored beside it as .json")
    add_answer_options(parser)


def rerank(args: argparse.Namespace) -> None:
    """Write the re-ranker and the pipeline; print GAP before, and after by boosters that have not seen the query."""
    check_least(args, 1, "top", "seeds")
    if args.out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out is {args.out}: give a name in .yaml, beside which the re-ranker is written as .json")
    import_lightgbm()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    before = pipeline_of(args)
    query_sets, device = open_splits(args)
    try:
        with progress(total=FOLDS * args.seeds, unit="boosters", what="fit") as bar:
            reranker = fit_reranker(list(query_sets.values()), before, args.top, args.seeds, device,
                                    lambda: bar.update())
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.pipeline or args.data}: {error}") from error
    model = args.out.with_suffix(".json")
    reranker.save(model)
    write_text(args.out, write_pipeline(Pipeline((*before.steps, Rerank(model.name)))))
    after = read_pipeline(args.out)
    print(f"{args.out}, {model}: fitted on {len(reranker.fitted_on):,} queries")
    for split, queries in query_sets.items():
        values = [evaluate(queries, pipeline, device).metrics["gap"] for pipeline in (before, after)]
        print(f"{split:6}GAP {values[0]:.4f} -> {values[1]:.4f} (each query judged by boosters that have not seen it)")


def open_splits(args: argparse.Namespace) -> tuple[dict[str, QuerySet], str]:
    """The queries of the splits that were asked for, and the device to answer them on."""
    folders = [args.run, *args.ensemble]
    models = [load_model(folder, tta=views_of(args)) for folder in folders]
    known = query_splits(args.data, models[0].cache)
    wrong = sorted(set(args.splits or known) - set(known))
    if wrong:
        raise UserError(f"--splits names {', '.join(wrong)}, which has no queries: give some of {', '.join(known)}")
    query_sets = open_queries(models, args.data, folders).sets
    return {split: query_sets[split] for split in args.splits or known}, models[0].device.type
