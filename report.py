"""Write the page of a run, or of a dataset: one HTML file that opens offline.

    python report.py --run runs/demo --data data/demo/dataset       scores, curves, training images, queries
    python report.py --data data/demo/dataset --out dataset.html    class sizes, image sizes, bytes, photos

Prints the headline figures too. Before a run's page, call evaluate.py, with and without --untrained.
"""
import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from arcshard import checkpoint
from arcshard.console import Parser, UserError, run
from arcshard.files import write_text
from arcshard.names import title
from arcshard.untrusted import parse_json
from loader import Loader, View
from model.augment import prepare
from pages import info
from pages.findings import Scores
from pages.report import ReportData, ShownNeighbor, ShownQuery, choose_queries, render, score_rows, tiles
from retrieval import Embeddings, nearest
from retrieval.evaluation import own_and_other
from retrieval.run.embed import data_suffix, store, stores
from retrieval.run.model import add_checkpoint
from shards import Dataset
from shards.info import info as describe
from training import log

VIEWS = 32
NEIGHBORS = 5
SAMPLED = 1000  # queries whose cosines to the whole gallery are computed for the histogram


def main() -> None:
    args = parse_args()
    if args.run is None:
        report_dataset(args.data, args.out)
    else:
        report_run(args)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", required=True, help="dataset: a folder; without --run also s3://…")
    parser.add_argument("--run", type=Path, help="folder that train.py wrote; without it the page is the dataset's")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: RUN/report.html)")
    add_checkpoint(parser)
    args = parser.parse_args()
    if args.run is None and args.out is None:
        parser.error("the page of a dataset has no default place: give --out, or --run for the page of a run")
    return args


def report_dataset(data: str, out: Path) -> None:
    write_text(out, info.render(data))
    print(describe(data))
    print(f"page: {out}")


def report_run(args: argparse.Namespace) -> None:
    data = collect(args.run, Path(args.data), args.checkpoint)
    path = args.out or args.run / f"report{data.run.removeprefix(args.run.name)}.html"
    write_text(path, render(data))
    print(summary(data))
    for name, file in (("report", path), ("submission", args.run / "submission.csv")):
        if file.is_file():
            print(f"{name:28}{file}")


def collect(out: Path, data: Path, name: str = checkpoint.NAME) -> ReportData:
    """Everything that the page shows, read from the run, the checkpoint that was evaluated, and its dataset."""
    saved, gallery = checkpoint.load(out, name), Dataset(data, "train")
    suffix = data_suffix(saved.trained_on, gallery)
    trained = read_scores(out / f"eval{suffix}.json")
    own = () if suffix else tuple(trained)
    if not trained:
        raise UserError(f"{out} has no eval{suffix}.json: run evaluate.py first")
    split = "test" if "test" in trained else next(iter(trained))
    queries, model = Dataset(data, split), checkpoint.fingerprint(out, name)
    folder = stores(out, saved.trained_on, gallery)
    embeddings = stored_embeddings(folder, queries, model), stored_embeddings(folder, gallery, model)
    untrained = read_scores(out / f"eval{suffix}-untrained.json")
    for name, file in other_evaluations(out).items() if not suffix else ():
        trained |= of_other_data(name, read_scores(file))
        untrained |= of_other_data(name, read_scores(file.with_stem(f"{file.stem}-untrained")))
    return ReportData(
        run=out.name + suffix, packed=sum(part["samples"] for part in gallery.manifest["splits"].values()),
        rejected=len(gallery.rejected()), untrained=untrained, trained=trained,
        metrics=log.read(out) + log.read(out, log.VALIDATION), split=split, own=own,
        generalized=bool(saved.config.get("model", {}).get("pca_dim")), views=training_views(gallery, saved.config),
        cosines=cosines_of(*embeddings), queries=answered_queries(*embeddings, queries, gallery))


def summary(data: ReportData) -> str:
    """The page's headline figures as lines of text."""
    lines = [f"{name:28}{value}" for name, value in tiles(data)]
    lines += [f"{f'{split} {name}':28}{before} untrained, {after} trained"
              for split, name, before, after, _ in score_rows(data) if name in ("recall@1", "GAP")]
    return "\n".join(lines)


def read_scores(path: Path) -> Scores:
    """{split: {metric: value}}; empty where the file is missing."""
    try:
        scores = parse_json(path.read_bytes()) if path.is_file() else {}
        if not isinstance(scores, dict) or not all(isinstance(value, int | float | None) for split in scores.values()
                                                   for value in dict(split).values()):
            raise ValueError
        return scores
    except (ValueError, TypeError):
        raise UserError(f"{path} does not hold evaluate.py's figures: run it again") from None


def other_evaluations(out: Path) -> dict[str, Path]:
    """By the dataset's name: evaluate.py's latest figures of the run on data that it was not trained on."""
    files = sorted(out.glob("eval-*.json"), key=lambda path: path.stat().st_mtime)
    found = ((re.fullmatch(r"eval-(?!details-)(.+)-[0-9a-f]{8}", path.stem), path) for path in files)
    return {match[1]: path for match, path in found if match}


def of_other_data(name: str, scores: Scores) -> Scores:
    """The same figures, with the dataset's name before each split's."""
    return {f"{name} {split}": figures for split, figures in scores.items()}


def training_views(dataset: Dataset, config: dict[str, Any]) -> NDArray[np.uint8]:
    """The run's first training images, uint8 (VIEWS, S, S, 3), in the colors that the network is given."""
    loader = Loader(dataset, batch_size=VIEWS, size=config["train"]["size"], seed=config["train"]["seed"],
                    view=View(**config["view"]))
    batch = next(iter(loader))
    pixels = prepare(batch.images, batch.jitter, mean=torch.zeros(3), std=torch.ones(3))
    return (255 * pixels).round().byte().permute(0, 2, 3, 1).numpy()


def cosines_of(queries: Embeddings, gallery: Embeddings) -> dict[str, NDArray[np.float32]]:
    """Cosines (n,), n > 0, of up to SAMPLED random queries to the nearest photo of their landmark and of another."""
    rows = np.random.default_rng(0).permutation(len(queries.keys))[:SAMPLED]
    labels = queries.labels[rows]
    own, other = own_and_other(queries.vectors[rows], labels, gallery.vectors, gallery.labels)
    kinds = {"own landmark": own, "another": other[labels >= 0], "no landmark": other[labels < 0]}
    return {label: cosines[cosines > -np.inf] for label, cosines in kinds.items() if (cosines > -np.inf).any()}


def answered_queries(queries: Embeddings, gallery: Embeddings, query_photos: Dataset,
                     gallery_photos: Dataset) -> dict[str, list[ShownQuery]]:
    """Queries worth a look under their headings, with their neighbors in the gallery."""
    cosines, rows = nearest(queries.vectors, gallery.vectors, min(NEIGHBORS, len(gallery.keys)))
    is_landmark = queries.labels >= 0
    right = is_landmark & (gallery.labels[rows[:, 0]] == queries.labels)

    def name(landmark: str) -> str:
        return title(gallery_photos.landmark_names.get(landmark, ""))

    def query(i: int) -> ShownQuery:
        found = [ShownNeighbor(gallery_photos.read(row), gallery.landmark_ids[row], cosine,
                               name(gallery.landmark_ids[row]))
                 for row, cosine in zip(rows[i].tolist(), cosines[i].tolist())]
        return ShownQuery(query_photos.read(i), queries.keys[i], queries.landmark_ids[i], found,
                          name(queries.landmark_ids[i]))

    chosen = choose_queries(cosines[:, 0], right, is_landmark)
    return {heading: [query(i) for i in picked.tolist()] for heading, picked in chosen.items()}


def stored_embeddings(folder: Path, dataset: Dataset, model: str) -> Embeddings:
    """A split's embeddings that evaluate.py stored. Raises UserError if they are of other weights or other photos."""
    path = store(folder, dataset.split)
    stored = Embeddings.load(path)
    if (stored.provenance.model, stored.provenance.dataset) != (model, dataset.fingerprint):
        raise UserError(f"{path} is of another checkpoint, or of other photos than {dataset.path}: "
                        "run evaluate.py again")
    return stored


if __name__ == "__main__":
    run(main)
