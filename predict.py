"""Answer photos: which landmark, with what score.

python predict.py --run runs/demo --index data/demo/dataset --images data/demo/photos/test --out submission.csv
python predict.py --run runs/demo --index data/demo/dataset data/demo/photos/test/001da280f5e12d2b.jpg

The first form writes one row for each photo below --images (jpg, jpeg, png, webp): id, the file's name without its
ending, and landmarks, "<landmark_id> <score>", empty where the photo could not be read. --sample gives Kaggle's
sample_submission.csv: its ids must be the photos', its order is that of the rows. --train-csv is the contest's
train.csv: if it is the public one of 1,580,470 photos, the sample is copied, since only the hidden rerun counts.
The second form prints the five best landmarks of each photo.

--index is a dataset, whose train split is the gallery, or embeddings that evaluate.py left (RUN/embeddings/train.npz).
Of the run, only its checkpoint is needed. Steps that compare with photos without landmark (--answers) take those of
the dataset's val and test splits; the photos to answer must not be among them.
"""
import argparse
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd

from arcshard.console import Parser, UserError, run
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from arcshard.urls import is_url
from evaluate import (GALLERY, RunModel, add_answer_options, add_checkpoint, embed_split, load_model, non_landmarks,
                      query_splits, store)
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from preprocess.packing.publish import NothingPacked
from preprocess.workers.engine import Engine
from retrieval import Candidates, Embeddings, Pipeline, Vectors, read_pipeline, write_submission
from retrieval.contest import in_sample_order, is_public_train, read_sample
from shards import Dataset

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
QUERY = "query"


@dataclass(frozen=True)
class Index:
    """What photos are compared with, by one run."""
    model: RunModel
    gallery: Embeddings
    non_landmarks: np.ndarray | None


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    if args.train_csv and is_public_train(args.train_csv):
        write_text(args.out, args.sample.read_text())
        print(f"{args.out}: a copy of {args.sample}, since {args.train_csv} is the public train set")
        return
    photos = check_photos(args.photos) or find_photos(args.images)
    ids = [photo.stem for photo in photos]
    sample = read_sample(args.sample) if args.sample else ids
    order = in_sample_order(ids, sample, args.sample) if args.sample else range(len(ids))
    answers, index = answer_photos(args, photos)
    landmarks = dict(zip(index.gallery.labels.tolist(), index.gallery.landmark_ids))
    if args.photos:
        dataset = Dataset(args.index, GALLERY, index.model.cache) if is_dataset(args.index) else None
        print(best_five(photos, answers, landmarks, dataset.landmark_names if dataset else {}))
        return
    best = [answers[number][0] if answers.get(number) else (-1, 0.0) for number in order]
    write_submission(args.out, sample, [landmarks.get(label, "") for label, _ in best], [score for _, score in best])
    unread = len(photos) - len(answers)
    print(f"{args.out}: {len(answers):,} photos answered" + (f", {unread:,} could not be read" if unread else ""))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="*", help="photos to answer on the screen")
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--index", required=True, help="dataset (folder or s3://…), or embeddings of evaluate.py")
    parser.add_argument("--images", type=Path, help="folder of photos, with any folders inside")
    parser.add_argument("--out", type=Path, help="CSV to write")
    parser.add_argument("--sample", type=Path, help="sample_submission.csv, whose ids and order the CSV shall have")
    parser.add_argument("--train-csv", type=Path, help="the contest's train.csv, which tells the hidden rerun")
    add_checkpoint(parser)
    add_answer_options(parser)
    args = parser.parse_args()
    if bool(args.photos) == bool(args.images) or bool(args.images) != bool(args.out):
        parser.error("give --images and --out for a submission, or photos to answer on the screen")
    if args.photos and (args.sample or args.train_csv) or args.train_csv and not args.sample:
        parser.error("--sample belongs to a submission, and --train-csv to --sample")
    return args


def check_photos(photos: list[Path]) -> list[Path]:
    """The photos, if all are there."""
    missing = next((photo for photo in photos if not photo.is_file()), None)
    if missing:
        raise UserError(f"a photo to answer must be a file; there is none at {missing}: check the path")
    return photos


def find_photos(folder: Path) -> list[Path]:
    """All photos below the folder, by name. Raises UserError if there are none, or two of one name."""
    if not folder.is_dir():
        raise UserError(f"--images must be a folder of photos; there is no folder {folder}: check the path")
    photos = sorted((path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()),
                    key=lambda path: (path.stem, path))
    if not photos:
        raise UserError(f"--images must hold photos ({', '.join(sorted(ENDINGS))}); {folder} has none: check the path")
    for one, other in pairwise(photos):
        if one.stem == other.stem:
            raise UserError(f"a submission has one row a name, but {one} and {other} share theirs: rename one")
    return photos


def answer_photos(args: argparse.Namespace, photos: list[Path]) -> tuple[dict[int, list[tuple[int, float]]], Index]:
    """Labels and scores, best first, by the number of each photo that could be read; and what --run compared with."""
    pipeline = read_pipeline(args.answers) if args.answers else Pipeline()
    runs = (args.run, *args.ensemble)
    indexes = [load_index(run_folder, args.checkpoint, args.index, pipeline) for run_folder in runs]
    where = args.out.parent if args.out else None
    if where:
        where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".queries-", dir=where) as work:
        asked = [embed_photos(index.model, photos, Path(work) / str(i)) for i, index in enumerate(indexes)]
    if asked[0] is None:
        return {}, indexes[0]
    try:
        found = answer(pipeline, indexes, [queries for queries in asked if queries is not None])
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.answers or args.index}: {error}") from error
    pairs = [[(label, score) for label, score in zip(labels, scores) if score > -np.inf]
             for labels, scores in zip(found.labels.tolist(), found.scores.tolist())]
    return {number_of(key): listed for key, listed in zip(asked[0].keys, pairs, strict=True)}, indexes[0]


def load_index(run_folder: Path, name: str, index: str, pipeline: Pipeline) -> Index:
    """A run and what it compares with. Raises UserError if the index is not one of this run, or empty."""
    model = load_model(run_folder, name)
    gallery = load_gallery(model, index, run_folder)
    if not gallery.keys:
        raise UserError(f"photos are compared with those of the index, but {index} has none: give another")
    if not pipeline.needs_non_landmarks:
        return Index(model, gallery, None)
    if not is_dataset(index):
        raise UserError(f"these answers compare with photos without landmark, but {index} is a file of embeddings: "
                        "give the dataset as --index")
    embedded = {split: embed_split(model, Dataset(index, split, model.cache), store(run_folder, split), keep=False)
                for split in query_splits(index, model.cache)}
    return Index(model, gallery, non_landmarks(embedded)[0])


def is_dataset(index: str) -> bool:
    """Whether it is a dataset, by its place alone; else a file of embeddings."""
    return is_url(index) or Path(index).is_dir()


def load_gallery(model: RunModel, index: str, run_folder: Path) -> Embeddings:
    """Embeddings to compare with. Raises UserError if they are another model's."""
    if is_dataset(index):
        return embed_split(model, Dataset(index, GALLERY, model.cache), store(run_folder, GALLERY), keep=False)
    gallery = Embeddings.load(Path(index))
    if gallery.model != model.fingerprint:
        raise UserError(f"embeddings compare only with those of the same weights, but {index} is not of the "
                        f"checkpoint in {run_folder}: give a dataset, or run evaluate.py again")
    return gallery


def key_of(number: int) -> str:
    """A key that the format allows, whatever the photo is called; keys sort as the photos do."""
    return f"photo_{number:09d}"


def number_of(key: str) -> int:
    return int(key.removeprefix("photo_"))


def embed_photos(model: RunModel, photos: list[Path], work: Path) -> Embeddings | None:
    """The photos as this run sees them; None if none could be read."""
    work.mkdir()
    queries = pack_photos(photos, work, model.packing)
    return embed_split(model, queries, None) if queries else None


def pack_photos(photos: list[Path], work: Path, packing: dict[str, Any]) -> Dataset | None:
    """Bring the photos into the normal form that the training photos had; None if none could be read."""
    images = work / "images"
    images.mkdir()
    for number, photo in enumerate(photos):
        (images / f"{key_of(number)}.jpg").symlink_to(photo.resolve())
    keys = [key_of(number) for number in range(len(photos))]
    samples = pd.DataFrame({"id": keys, "landmark_id": "", "label": -1, "split": QUERY})
    options = PackOptions(short_side=packing.get("short_side"), quality=packing.get("quality", 90))  # not if adopted
    try:
        pack(samples, [images], work / "dataset", options, Engine(joblib.cpu_count()))
    except NothingPacked:
        return None
    return Dataset(work / "dataset", QUERY)


def answer(pipeline: Pipeline, indexes: list[Index], asked: list[Embeddings]) -> Candidates:
    """Candidates of the photos by all runs together."""
    models = tuple(Vectors(queries.vectors, index.gallery.vectors, index.non_landmarks, index.model.centers)
                   for index, queries in zip(indexes, asked, strict=True))
    return pipeline.answer(models, indexes[0].gallery.labels, indexes[0].model.device.type)


def best_five(photos: list[Path], answers: dict[int, list[tuple[int, float]]], landmarks: dict[int, str],
              names: dict[str, str]) -> str:
    """A line a candidate: score, landmark id, and its name where there is one."""
    lines = []
    for number, photo in enumerate(photos):
        lines.append(f"{photo}" + ("" if number in answers else ": could not be read"))
        for label, score in answers.get(number, [])[:5]:
            known = landmarks.get(label, "")
            lines.append(f"  {score:9.4f}  {known or 'no landmark'}  {names.get(known, '')}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
