"""Measure a run, or stored embeddings, on the benchmarks of others (python -m retrieval benchmark)."""
import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcshard.console import Parser, UserError, check_least, progress
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from preprocess.images.formats import PHOTO_ENDINGS
from retrieval import Embeddings, Vectors, gap, map_at_k
from retrieval.benchmarks import (
    Asked,
    Figures,
    RevisitedTruth,
    Rows,
    figures,
    means,
    read_gnd,
    read_relevant,
    read_solution,
    setups_of,
)
from retrieval.metrics import NO_LANDMARK
from retrieval.pipeline import candidates
from retrieval.run.model import RunModel, add_checkpoint, load_model, pipeline_of, read_tta
from retrieval.run.own_shape import OWN_SHAPE, Boxes, Photos, embed_photos, in_own_shape, open_photos
from retrieval.state import State
from retrieval.store import is_store
from retrieval.whitening import Whitening, fit_whitening, parts_of

REVISITED = ("roxford5k", "rparis6k")
NAMES = (*REVISITED, "gldv2-retrieval", "gldv2-recognition", "csv")
SIZE, SCALES = 1024, "0.7071,1.4142"  # what nearly all published figures have; the photo itself is the third scale
DEPTH = 100  # of mAP@100
LEARNED_FROM = 20_000  # photos, evenly spaced: ten times as many as a ResNet's features have dimensions
AT_A_TIME = 2**27  # cosines: 0.5 GB

Source = Photos | Embeddings


def add_arguments(parser: Parser) -> None:
    parser.add_argument("name", choices=NAMES, help="csv: a table of your own with the columns query,relevant,junk")
    parser.add_argument("--truth", type=Path, required=True,
                        help="gnd_roxford5k.pkl, retrieval_solution_v2.1.csv, recognition_solution_v2.1.csv, or the "
                             "table")
    parser.add_argument("--gallery", required=True, metavar="WHERE",
                        help="photos searched in: a folder, DATASET:SPLIT, or a store of embeddings")
    parser.add_argument("--queries", metavar="WHERE", help="photos asked about (default: in the gallery's folder)")
    parser.add_argument("--distractors", metavar="WHERE", help="photos that are added to the gallery, none relevant")
    parser.add_argument("--run", type=Path, help="folder that train.py wrote; stores need none")
    parser.add_argument("--uncropped", action="store_true",
                        help="roxford5k, rparis6k: ask about whole photos, not about the building in its box")
    parser.add_argument("--whiten", metavar="WHERE",
                        help=f"PCA whitening: a file of python -m retrieval whiten, or photos to learn it from, best "
                             f"the run's train split (at most {LEARNED_FROM:,} of them)")
    parser.add_argument("--dim", type=int, help="components that --whiten keeps (default: all)")
    parser.add_argument("--pipeline", type=Path, metavar="YAML",
                        help="list of steps; for retrieval, the lists that they leave come before all other photos")
    parser.add_argument("--size", type=int, default=SIZE, metavar="PIXELS",
                        help=f"longest side of the photos, which are not scaled up to it (default: {SIZE})")
    parser.add_argument("--tta", type=read_tta, default=read_tta(SCALES), metavar="VIEWS",
                        help=f"none, or flip and further scales of the photo (default: {SCALES})")
    parser.add_argument("--out", type=Path, help="JSON to write (default: in the run, named by its options)")
    add_checkpoint(parser)


@dataclass(frozen=True)
class Measured:
    """What is measured: embeddings, and what tells the figures from others."""
    queries: Embeddings
    gallery: Embeddings
    distractors: Embeddings | None
    settings: dict[str, Any]
    """As the result names them."""
    right: list[Rows]
    """Of each query, rows of the gallery that are right; none where the ground truth names landmarks or setups."""
    junk: list[Rows]
    """Likewise, rows that are passed over."""
    whitening: Whitening | None = None
    """Of the gallery and the distractors before the search; the queries are whitened already."""


def benchmark(args: argparse.Namespace) -> None:
    """Print a row of a table and write a JSON. Raises UserError for anything that does not fit."""
    check_least(args, 1, "size", "dim")
    keep_freed_memory()
    check_options(args)
    truth = read_truth(args)
    measured = whitened(args, embedded(args, truth))
    results = scored(args, truth, measured)
    report = {"benchmark": args.name, **measured.settings, "results": results}
    out = args.out or args.run / f"benchmark-{'-'.join(variant(report))}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(report, indent=2) + "\n")
    print(table(report))
    print(f"\n{out}")


def read_truth(args: argparse.Namespace) -> RevisitedTruth | dict[str, Asked]:
    """What --truth holds."""
    if args.name in REVISITED:
        return read_gnd(args.truth)
    if args.name == "csv":
        return read_relevant(args.truth)
    return read_solution(args.truth, "images" if args.name == "gldv2-retrieval" else "landmarks")


def check_options(args: argparse.Namespace) -> None:
    """Raise UserError for options that contradict each other."""
    if args.queries is None and args.name.startswith("gldv2"):
        raise UserError(f"{args.name} asks about photos of the test set, which are not in the gallery: give --queries")
    if args.uncropped and args.name not in REVISITED:
        raise UserError(f"--uncropped is given, but only {' and '.join(REVISITED)} have boxes: leave it out")
    if args.dim and not args.whiten:
        raise UserError("--dim is given without --whiten, which cuts off dimensions: give both")
    if not (args.run or args.out):
        raise UserError("--run is missing: give the run, or stores of embeddings and --out FILE.json")
    pipeline_of(args)  # files that are wrong are refused before anything is embedded
    if args.whiten:
        Whitening.load(Path(args.whiten)) if args.whiten.endswith(".npy") else opened(args.whiten)


# Embeddings of what the ground truth names.


def embedded(args: argparse.Namespace, truth: RevisitedTruth | dict[str, Asked]) -> Measured:
    """Queries and gallery in the order of the ground truth, and distractors."""
    gallery = opened(args.gallery)
    queries = opened(args.queries) if args.queries else gallery
    more = opened(args.distractors) if args.distractors else None
    asked = truth.queries if isinstance(truth, RevisitedTruth) else list(truth)
    queries = take(queries, asked, f"{args.queries or args.gallery} lacks queries of {args.truth}")
    right: list[Rows] = []
    junk: list[Rows] = []
    if isinstance(truth, RevisitedTruth):
        gallery = take(gallery, truth.gallery, f"{args.gallery} lacks photos of {args.truth}")
    elif args.name == "gldv2-recognition":
        check_landmarks(args, truth, gallery)
    else:
        right, junk = right_and_junk(args, truth, gallery.keys)
    boxes = truth.boxes if isinstance(truth, RevisitedTruth) and not args.uncropped else None
    model = model_of(args, [source for source in (gallery, queries, more) if source is not None])
    searched = vectors_of(args, model, gallery, "gallery")
    added = None if more is None else vectors_of(args, model, more, "distractors")
    asked_about = vectors_of(args, model, queries, "queries", boxes)
    check_alike([asked_about, searched, *([added] if added else [])])
    shown = "as stored" if isinstance(queries, Embeddings) else "whole" if boxes is None else "cropped"
    return Measured(asked_about, searched, added, settings_of(args, asked_about, shown)
                    | {"gallery": len(searched.keys), "distractors": len(added.keys) if added else 0}, right, junk)


def check_landmarks(args: argparse.Namespace, truth: dict[str, Asked], gallery: Source) -> None:
    """Raise UserError if the gallery shows no landmark that is asked for."""
    named = {id for asked in truth.values() for id in asked.right}
    if not named & {*gallery.landmark_ids}:
        raise UserError(f"{args.gallery} has none of the {len(named):,} landmarks that {args.truth} names, such as "
                        f"{min(named, default='')}: give DATASET:SPLIT or a store of the photos that show them")


def right_and_junk(args: argparse.Namespace, truth: dict[str, Asked], keys: list[str]) -> tuple[list[Rows], list[Rows]]:
    """Of each query, rows of the gallery; where the queries are in it, they are no answers to themselves."""
    rows_of = lookup(keys, f"{args.gallery} lacks photos that {args.truth} calls relevant or junk")
    right, junk = ([rows_of(getattr(asked, name)) for asked in truth.values()] for name in ("right", "junk"))
    if args.queries not in (None, args.gallery):
        return right, junk
    own = rows_of(truth)
    return ([np.setdiff1d(rows, row) for rows, row in zip(right, own)],
            [np.append(rows, row) for rows, row in zip(junk, own)])


def settings_of(args: argparse.Namespace, queries: Embeddings, shown: str) -> dict[str, Any]:
    """What tells a result from others; shown: how much of the queries' photos."""
    views = queries.provenance
    return {"run": args.run.name if args.run else args.gallery, "weights": views.model, "size": views.size or "unknown",
            "shape": shape_of(queries), "scales": "1" if views.tta == "none" else f"1,{views.tta}", "queries": shown,
            "whitening": "none", "dim": queries.vectors.shape[1],
            "pipeline": args.pipeline.stem if args.pipeline else "five voters" if args.name == "gldv2-recognition" else
            "none"}


def opened(where: str) -> Source:
    """A store of embeddings, or photos."""
    return Embeddings.load(where) if is_store(where) else open_photos(where)


def take(source: Source, names: Iterable[str], lacks: str) -> Source:
    """The rows of those names, in their order. Raises UserError if one is not there, or comes twice."""
    rows = lookup(source.keys, lacks)(names).tolist()
    commonest, times = Counter(rows).most_common(1)[0]
    if times > 1:
        raise UserError(f"the ground truth names the photo {source.keys[commonest]} {times} times: name it once")
    if isinstance(source, Photos):
        return source.take(rows)
    return Embeddings(source.vectors[rows], [source.keys[row] for row in rows], source.labels[rows],
                      [source.landmark_ids[row] for row in rows], source.provenance)


def lookup(keys: list[str], lacks: str) -> Callable[[Iterable[str]], Rows]:
    """A function from names to their rows among the keys; a name may have a photo's ending, and a folder in front.

    It raises UserError, that begins with `lacks`, for names that are not there.
    """
    row_of = {key: row for row, key in enumerate(keys)}

    def row(name: str) -> int | None:
        path = PurePosixPath(name)
        bare = path.with_suffix("") if path.suffix.lower() in PHOTO_ENDINGS else path
        return next((row_of[key] for key in (name, str(bare), bare.name) if key in row_of), None)

    def rows(names: Iterable[str]) -> Rows:
        found = [(name, row(name)) for name in names]
        missing = [name for name, place in found if place is None]
        if missing:
            raise UserError(f"{lacks}: {len(missing):,} of them, first {missing[0]}: add them, or check both paths")
        return np.array([place for _, place in found], np.int64)
    return rows


def model_of(args: argparse.Namespace, sources: list[Source]) -> RunModel | None:
    """The run's network, if photos are to be embedded."""
    if all(isinstance(source, Embeddings) for source in sources):
        return None
    if args.run is None:
        raise UserError("--run is missing, and there are photos to embed: give the run, or stores alone")
    return in_own_shape(load_model(args.run, args.checkpoint), args.run, replace(args.tta, size=args.size))


def vectors_of(args: argparse.Namespace, model: RunModel | None, source: Source, what: str, boxes: Boxes | None = None
               ) -> Embeddings:
    """The source's embeddings, kept below the run."""
    if isinstance(source, Embeddings) or model is None:
        assert isinstance(source, Embeddings)
        return source
    folder = "-".join([what, f"{model.size}px", model.tta.name, *(["cropped"] if boxes is not None else [])])
    return embed_photos(model, source, args.run / "embeddings" / "benchmarks" / args.name / folder, what, boxes)


def check_alike(stores: list[Embeddings]) -> None:
    """Raise UserError for embeddings that cannot be compared."""
    if len({(one.provenance.model, one.provenance.tta, one.provenance.size, shape_of(one)) for one in stores}) > 1:
        raise UserError("the stores of embeddings are of different weights, views, sizes or shapes, and cannot be "
                        "compared: embed all in one way")


def shape_of(store: Embeddings) -> str:
    """How photos were shown: as squares (python -m retrieval embed), or in their own shape."""
    return "own" if store.provenance.split.endswith(OWN_SHAPE) else "square"


def whitened(args: argparse.Namespace, measured: Measured) -> Measured:
    """The same with whitened queries, and the whitening of the others, if that was asked for."""
    if args.whiten is None:
        return measured
    try:
        by = whitening_of(args, measured)
        queries = replace(measured.queries, vectors=by.apply(measured.queries.vectors))
    except ValueError as error:
        raise UserError(f"--whiten {args.whiten}: {error}") from error
    settings = {**measured.settings, "whitening": Path(args.whiten).name, "dim": len(by.bias)}
    return replace(measured, queries=queries, whitening=by, settings=settings)


def whitening_of(args: argparse.Namespace, measured: Measured) -> Whitening:
    """As read from its file, or learned from the photos or embeddings that are named."""
    if args.whiten.endswith(".npy"):
        return Whitening.load(Path(args.whiten)).first(args.dim)
    source = opened(args.whiten)
    if isinstance(source, Photos):
        rows = np.linspace(0, len(source.keys) - 1, min(LEARNED_FROM, len(source.keys))).astype(int).tolist()
        source = vectors_of(args, model_of(args, [source]), source.take(rows), "whitening")
    check_alike([source, measured.queries])
    return fit_whitening(source.vectors, args.dim)


# Figures.


def scored(args: argparse.Namespace, truth: RevisitedTruth | dict[str, Asked], measured: Measured
           ) -> dict[str, dict[str, float]]:
    """{part or setup: {figure: value in [0, 1]}}."""
    first = state_of(measured)
    pipeline = pipeline_of(args)
    try:
        state = pipeline.apply(first) if args.pipeline or args.name == "gldv2-recognition" else first
    except ValueError as error:
        raise UserError(f"{args.pipeline or args.gallery}: {error}") from error
    if isinstance(truth, RevisitedTruth):
        return means([setups_of(ranking, one) for (ranking, _), one in zip(rankings(state), truth.gnd)])
    if args.name == "gldv2-recognition":
        return recognized(truth, measured, state)
    if args.name == "csv":
        return {"all": of_table(measured, state)}
    found: dict[str, list[float]] = {"public": [], "private": []}
    for (ranking, _), asked, right in zip(rankings(state), truth.values(), measured.right):
        found[asked.part].append(map_at_100(ranking, right))
    return {part: {"map@100": float(np.mean(values)) if values else 0.0} for part, values in found.items()}


def map_at_100(ranking: Rows, right: Rows) -> float:
    """AP@100 of one query, as Google Landmarks defines it: without trapezoids, divided by min(n, 100)."""
    return map_at_k(ranking[None], [set(right.tolist())], [len(right)], DEPTH)


def state_of(measured: Measured) -> State:
    """What the steps begin with: the distractors come after the gallery and show no landmark that is known."""
    more = [measured.distractors] if measured.distractors else []
    gallery = joined([one.vectors for one in (measured.gallery, *more)], measured.whitening)
    vectors = Vectors(measured.queries.vectors.astype(np.float32, copy=False), gallery)
    labels = np.concatenate([measured.gallery.labels, *(np.full(len(one.keys), NO_LANDMARK) for one in more)])
    return State((vectors,), labels, sources=(vectors,), keys=measured.queries.keys)


def joined(parts: list[NDArray[np.floating]], whitening: Whitening | None) -> NDArray[np.floating]:
    """All rows, whitened if asked for, in one matrix: a million of 512 numbers take 2 GB, and no copy besides."""
    if whitening is None:
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    found, start = np.empty((sum(map(len, parts)), len(whitening.bias)), np.float32), 0
    for part in parts:
        for rows in parts_of(len(part), "whiten"):
            found[start + rows.start:start + rows.start + len(part[rows])] = whitening.apply(part[rows])
        start += len(part)
    return found


def rankings(state: State) -> Iterator[tuple[Rows, NDArray[np.float32]]]:
    """For each query all N rows of the gallery, best first, and the N cosines by row.

    By cosine, equal ones by row; the neighbors that steps have listed, in their order, come before all others.
    """
    vectors = state.models[0]
    step = max(1, AT_A_TIME // len(vectors.gallery))
    with progress(total=len(vectors.queries), unit="queries", what="rank") as bar:
        for start in range(0, len(vectors.queries), step):
            cosines = products(vectors.queries[start:start + step], vectors.gallery)
            for q, own in enumerate(cosines, start):
                ranking = np.argsort(-own, kind="stable")
                if state.neighbors:
                    listed = state.neighbors[0].rows[q][state.neighbors[0].scores[q] > -np.inf]
                    ranking = np.concatenate([listed, ranking[~np.isin(ranking, listed)]])
                yield ranking, own
                bar.update()


def products(queries: NDArray[np.float32], gallery: NDArray[np.floating], chunk: int = 2**16) -> NDArray[np.float32]:
    """float32 (Q, N); the gallery may be float16 and memory-mapped."""
    found = np.empty((len(queries), len(gallery)), np.float32)
    for start in range(0, len(gallery), chunk):
        found[:, start:start + chunk] = queries @ gallery[start:start + chunk].astype(np.float32).T
    return found


def of_table(measured: Measured, state: State) -> dict[str, float]:
    """map and mp@k as of Revisited Oxford, mAP@100 as of Google Landmarks, GAP by the nearest photo; all without junk.
    """
    each: list[Figures] = []
    rectangular, labels, scores = [], [], []
    for (ranking, cosines), right, junk in zip(rankings(state), measured.right, measured.junk):
        ranking = ranking[~np.isin(ranking, junk)]
        each.append({"all": figures(ranking, right, junk)})
        if len(right):
            rectangular.append(map_at_100(ranking, right))
        labels.append(int(ranking[0]) if len(ranking) else NO_LANDMARK)
        scores.append(float(cosines[ranking[0]]) if len(ranking) else 0.0)
    return {**means(each)["all"], "map@100": float(np.mean(rectangular)) if rectangular else 0.0,
            "gap": gap(labels, scores, [{*rows.tolist()} for rows in measured.right], measured.queries.keys)}


def recognized(truth: dict[str, Asked], measured: Measured, state: State) -> dict[str, dict[str, float]]:
    """GAP of the public and of the private queries; official is GlobalAveragePrecision, see `retrieval.metrics.gap`."""
    label_of = dict(zip(measured.gallery.landmark_ids, measured.gallery.labels.tolist()))
    label_of.pop("", None)
    unknown = max(label_of.values()) + 1  # a landmark that the gallery lacks can be missed, but not found
    found = candidates(state)
    results = {}
    for part in ("public", "private"):
        rows = [q for q, asked in enumerate(truth.values()) if asked.part == part]
        truths = [{label_of.get(id, unknown) for id in asked.right} for asked in truth.values() if asked.part == part]
        results[part] = {"gap": gap(found.answers[rows], found.confidences[rows], truths,
                                    [measured.queries.keys[q] for q in rows])}
    return results


# Output.


def variant(report: dict[str, Any]) -> list[str]:
    """Words of the result's name: what tells its row from others of the run."""
    words = [report["benchmark"], str(report["size"]), report["scales"], report["queries"],
             f"whitened{report['dim']}" if report["whitening"] != "none" else "", report["pipeline"],
             f"plus{report['distractors']}" if report["distractors"] else ""]
    return [word.replace(" ", "-") for word in words if word not in ("", "none")]


def table(report: dict[str, Any]) -> str:
    """Markdown: a header, and one row with settings and figures in percent."""
    names = ("benchmark", "run", "size", "shape", "scales", "queries", "whitening", "dim", "pipeline")
    gallery = " + ".join(f"{report[name]:,}" for name in ("gallery", "distractors") if report[name])
    cells = {**{name: report[name] for name in names}, "gallery": gallery,
             **{name if part == "all" else f"{part} {name}": f"{100 * value:.2f}"
                for part, values in report["results"].items() for name, value in values.items()}}
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (cells, ["---"] * len(cells), cells.values()))
