"""Answer photos: which landmark, with what score.

python predict.py --run runs/demo --index data/demo/dataset --images data/demo/photos/test --out submission.csv

Writes one row for each photo below --images (jpg, jpeg, png, webp): id, the file's name without its ending, and
landmarks, "<landmark_id> <score>", empty where the photo could not be read. --index is a dataset, whose train split
is the gallery, or embeddings that evaluate.py left (RUN/embeddings/train.npz). Of the run, only its checkpoint is
needed.
"""
import argparse
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import joblib
import pandas as pd

from arcshard.console import Parser, UserError, run
from arcshard.memory import keep_freed_memory
from evaluate import GALLERY, RunModel, add_checkpoint, embed_split, load_model, store
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from preprocess.packing.publish import NothingPacked
from preprocess.workers.engine import Engine
from retrieval import Embeddings, nearest, vote, write_submission
from retrieval.answers import POWER, VOTERS
from shards import Dataset

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
QUERY = "query"


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    photos = find_photos(args.images)
    model = load_model(args.run, args.checkpoint)
    gallery = load_gallery(model, args.index, args.run)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".queries-", dir=args.out.parent) as work:
        answers = answer(model, gallery, pack_photos(photos, Path(work), model.packing))
    rows = [answers.get(key_of(number), ("", 0.0)) for number in range(len(photos))]
    write_submission(args.out, [photo.stem for photo in photos], *zip(*rows))
    unread = len(photos) - len(answers)
    print(f"{args.out}: {len(answers):,} photos answered" + (f", {unread:,} could not be read" if unread else ""))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    add_checkpoint(parser)
    parser.add_argument("--index", type=Path, required=True, help="dataset folder, or embeddings of evaluate.py")
    parser.add_argument("--images", type=Path, required=True, help="folder of photos, with any folders inside")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    return parser.parse_args()


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


def load_gallery(model: RunModel, index: Path, run_folder: Path) -> Embeddings:
    """Embeddings to compare with. Raises UserError if they are another model's."""
    if index.is_dir():
        return embed_split(model, Dataset(index, GALLERY), store(run_folder, GALLERY), keep=False)
    gallery = Embeddings.load(index)
    if gallery.model != model.fingerprint:
        raise UserError(f"embeddings compare only with those of the same weights, but {index} is not of the "
                        f"checkpoint in {run_folder}: give a dataset, or run evaluate.py again")
    return gallery


def key_of(number: int) -> str:
    """A key that the format allows, whatever the photo is called; keys sort as the photos do."""
    return f"photo_{number:09d}"


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


def answer(model: RunModel, gallery: Embeddings, queries: Dataset | None) -> dict[str, tuple[str, float]]:
    """Landmark id and score for the key of each query."""
    if queries is None:
        return {}
    asked = embed_split(model, queries, None)
    voters = min(VOTERS, len(gallery.keys))
    cosines, neighbours = nearest(asked.vectors, gallery.vectors, voters, device=model.device.type)
    labels, scores = vote(cosines, gallery.labels[neighbours], voters, POWER)
    landmark_of = dict(zip(gallery.labels.tolist(), gallery.landmark_ids))
    return {key: (landmark_of[label], score)
            for key, label, score in zip(asked.keys, labels.tolist(), scores.tolist(), strict=True)}


if __name__ == "__main__":
    run(main)
