"""Benchmarks of others: their ground truth as they publish it, and their metrics. Pure, in float64.

Revisited Oxford and Paris (Radenović et al. 2018, arXiv 1803.11285), Google Landmarks v2 (Weyand et al. 2020, arXiv
2004.01804), and any photos with a table of what is relevant. A ranking holds all N rows of the gallery, best first.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from arcshard.console import UserError
from arcshard.csv_table import read_table
from arcshard.untrusted import parse_pickle

Rows = NDArray[np.int64]
KAPPAS = (1, 5, 10)
SETUPS = {"easy": (("easy",), ("junk", "hard")), "medium": (("easy", "hard"), ("junk",)),
          "hard": (("hard",), ("junk", "easy"))}
"""By name: the lists of a query that are right, and those that are passed over."""


def revisited(ranks: ArrayLike, gnd: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """{setup: {map, mp@1, mp@5, mp@10}} of Revisited Oxford and Paris, each in [0, 1]; setups easy, medium and hard.

    Args:
        ranks: int64 (N, Q): column q holds all rows of the gallery, best first.
        gnd: Q dicts with lists of rows: easy, hard, junk.

    A query with nothing right is left out of a setup's means; of none the mean is 0. Official is compute_map in
    filipradenovic/revisitop 3bb68d3, python/evaluate.py. Raises ValueError for shapes that do not fit.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or ranks.shape[1] != len(gnd):
        raise ValueError(f"ranks has the shape {ranks.shape}: give a column for each of the {len(gnd)} queries")
    return means([setups_of(ranking, truth) for ranking, truth in zip(ranks.T, gnd)])


Figures = dict[str, dict[str, float] | None]
"""A query's figures by setup or part; None where it does not count."""


def setups_of(ranking: Rows, truth: dict[str, Any]) -> Figures:
    """The figures of one query of Revisited Oxford or Paris."""
    lists = {name: np.asarray(truth[name], np.int64).ravel() for name in ("easy", "hard", "junk")}
    return {setup: figures(ranking, *(np.concatenate([lists[name] for name in names]) for names in parts))
            for setup, parts in SETUPS.items()}


def means(queries: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """The mean of each figure of each part over the queries that count there."""
    counted = {part: [found for query in queries if (found := query.get(part))]
               for part in dict.fromkeys(part for query in queries for part in query)}
    names = ["map", *(f"mp@{k}" for k in KAPPAS)]
    return {part: {name: float(np.mean([one[name] for one in found])) if found else 0.0
                   for name in (found[0] if found else names)} for part, found in counted.items()}


def figures(ranking: Rows, right: Rows, junk: Rows) -> dict[str, float] | None:
    """map and mp@k of one query; None if nothing is right. A right row that the ranking lacks counts as missed."""
    if not len(right):
        return None
    places = places_without(ranking, right, junk)
    return {"map": average_precision(places, len(right)), **{f"mp@{k}": precision_at(places, k) for k in KAPPAS}}


def places_without(ranking: Rows, right: Rows, junk: Rows) -> Rows:
    """Where the right rows stand once the junk is taken out of the ranking, from 0, ascending."""
    is_junk, is_right = np.isin(ranking, junk), np.isin(ranking, right)
    before: Rows = np.cumsum(is_junk) - is_junk
    return np.flatnonzero(is_right) - before[is_right]


def average_precision(places: Rows, num_right: int) -> float:
    """Area below precision over recall by trapezoids: at the j-th right one, from 0, the mean of the precision before
    and after it, j / place and (j + 1) / (place + 1); before the first place precision is 1."""
    found = np.arange(len(places))
    before = np.where(places > 0, found / np.maximum(places, 1), 1.0)
    return float((before + (found + 1) / (places + 1)).sum() / (2 * num_right))


def precision_at(places: Rows, k: int) -> float:
    """Share of right ones among the first k, or up to the last right one if that comes earlier."""
    if not len(places):
        return 0.0
    k = min(k, int(places[-1]) + 1)
    return float((places < k).sum() / k)


# Ground truth as it is published.


@dataclass(frozen=True)
class RevisitedTruth:
    """What a gnd_*.pkl holds."""
    gallery: list[str]
    """N names of photos, without ending."""
    queries: list[str]
    """Q names."""
    boxes: NDArray[np.float64]
    """(Q, 4): left, top, right, bottom in pixels of the building that is asked for."""
    gnd: list[dict[str, Rows]]
    """For each query, rows of the gallery: easy, hard, junk."""


def read_gnd(path: Path) -> RevisitedTruth:
    """Read gnd_roxford5k.pkl or gnd_rparis6k.pkl; nothing in it is executed. Raises UserError for another file."""
    try:
        found = parse_pickle(path.read_bytes())
        gallery, queries = ([str(name) for name in found[key]] for key in ("imlist", "qimlist"))
        boxes = np.array([one["bbx"] for one in found["gnd"]], np.float64).reshape(-1, 4)
        gnd = [{name: np.array(one[name], np.int64).ravel() for name in ("easy", "hard", "junk")}
               for one in found["gnd"]]
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise UserError(f"{path} is no ground truth of Revisited Oxford or Paris ({error!s:.200}): give "
                        "gnd_roxford5k.pkl or gnd_rparis6k.pkl as published") from None
    rows = np.concatenate([np.zeros(1, np.int64), *(rows for one in gnd for rows in one.values())])
    if not 0 < len(queries) == len(gnd) or rows.min() < 0 or rows.max() >= len(gallery) or not _are_boxes(boxes):
        raise UserError(f"{path} contradicts itself: it names {len(gallery):,} photos and {len(queries)} queries, and "
                        f"has {len(gnd)} entries with rows up to {rows.max():,}, or boxes without area: download it "
                        "again")
    return RevisitedTruth(gallery, queries, boxes, gnd)


def _are_boxes(boxes: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(boxes).all() and (boxes[:, :2] < boxes[:, 2:]).all())


@dataclass(frozen=True)
class Asked:
    """A query of a table."""
    part: str
    """Of the test: public or private; "all" where a table has no parts."""
    right: list[str]
    """Names of photos, or landmark ids."""
    junk: list[str]
    """Names of photos."""


def read_solution(path: Path, column: str) -> dict[str, Asked]:
    """The queries of retrieval_solution_v2.1.csv (column images) or recognition_solution_v2.1.csv (column landmarks).

    Those whose Usage is Ignored are left out. Raises UserError for another file.
    """
    parts = {"Public": "public", "Private": "private", "Ignored": ""}
    return {id: Asked(parts[usage], right.split(), [])
            for id, right, usage in _rows(path, ["id", column, "Usage"], parts) if parts[usage]}


def read_relevant(path: Path) -> dict[str, Asked]:
    """The queries of a CSV with the columns query, relevant, junk: names of photos separated by spaces.

    Raises UserError for another file.
    """
    return {query: Asked("all", right.split(), junk.split())
            for query, right, junk in _rows(path, ["query", "relevant", "junk"])}


def _rows(path: Path, columns: list[str], usages: Iterable[str] = ()) -> list[list[str]]:
    try:
        rows = read_table(path, columns)
    except ValueError as error:
        raise UserError(f"{path} {error}: give a table with the columns {','.join(columns)}") from None
    names, known = [row[0] for row in rows], list(usages)
    if not names or len(set(names)) < len(names):
        raise UserError(f"{path} has no row, or two for one query: give one row for each query")
    if odd := next((row for row in rows if known and row[-1] not in known), None):
        raise UserError(f"{path} has the Usage {odd[-1]!r:.80} for {odd[0]!r:.80}: give {', '.join(known)}")
    return rows
