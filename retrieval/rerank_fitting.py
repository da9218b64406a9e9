"""Fitting a re-ranker to queries whose landmarks are known."""
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.evaluation import Questions, by_half, final_states
from retrieval.metrics import Truths, is_true
from retrieval.pipeline import Pipeline, write_pipeline
from retrieval.rerank_features import columns, first
from retrieval.reranker import FOLDS, Reranker, fold_of, import_lightgbm

# 2nd place's (683f021, generate_submissions.ipynb), and what makes two fits equal.
PARAMETERS = {"objective": "multiclass", "learning_rate": 0.1, "num_leaves": 7, "max_depth": 3,
              "min_child_samples": 100, "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8,
              "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1}
ROUNDS, PATIENCE = 300, 50


def fit_reranker(asked: Sequence[Questions], pipeline: Pipeline, top: int = 3, seeds: int = 10, device: str = "cpu",
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


def told_and_right(asked: Questions, pipeline: Pipeline, top: int, device: str = "cpu"
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
