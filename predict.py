"""Answer photos: which landmark, with what score.

python predict.py --run runs/demo --index data/demo/dataset --images data/demo/photos/test --out submission.csv
python predict.py --run runs/demo --index data/demo/dataset data/demo/photos/test/001da280f5e12d2b.jpg

The first form writes one row for each photo below --images (jpg, jpeg, png, webp): id, the file's name without its
ending, and landmarks, "<landmark_id> <score>", empty where the photo could not be read. --sample gives Kaggle's
sample_submission.csv: its ids must be the photos', its order is that of the rows. --train-csv is the contest's
train.csv: if it is the public one of 1,580,470 photos, the sample is copied, since only the hidden rerun counts.
It ends with the rate at which photos were packed, embedded and answered, and the contest's hours at that rate.
The second form prints the five best landmarks of each photo; --picture neighbors.jpg shows the photos beside their
nearest neighbors.

--index is a dataset, whose train split is the gallery, or embeddings that evaluate.py left (RUN/embeddings/train)
or python -m retrieval embed.
Of the run, only its checkpoint is needed. Steps that compare with photos without landmark (--pipeline) take those of
the dataset's val and test splits; the photos to answer must not be among them.
"""
import argparse
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from arcshard.console import Parser, UserError, run
from arcshard.files import whole_file, write_text
from arcshard.memory import keep_freed_memory
from retrieval import Pipeline, read_pipeline, write_submission
from retrieval.evaluation import budget, in_sample_order, is_public_train, read_sample
from retrieval.run.gallery import answer_picture
from retrieval.run.model import add_answer_options, add_checkpoint
from retrieval.run.photos import answers_of, load_index, state_of

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


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
    pipeline = read_pipeline(args.pipeline) if args.pipeline else Pipeline()
    indexes = [load_index(folder, args.checkpoint, args.index, pipeline, args.tta)
               for folder in (args.run, *args.ensemble)]
    if args.picture and indexes[0].photos is None:
        raise UserError(f"a picture shows the gallery's photos, but {args.index} is a store of embeddings: give the "
                        "dataset as --index")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        numbers, state = state_of(pipeline, indexes, photos, args.out.parent if args.out else None)
    except ValueError as error:  # a step that lacks what it needs
        raise UserError(f"{args.pipeline or args.index}: {error}") from error
    took = time.monotonic() - started
    answers, gallery, dataset = answers_of(numbers, state), indexes[0].gallery, indexes[0].photos
    landmarks = dict(zip(gallery.labels.tolist(), gallery.landmark_ids))
    if args.photos:
        print(best_five(photos, answers, landmarks, dataset.landmark_names if dataset else {}))
        if args.picture and state and dataset:
            write_picture(args.picture, answer_picture(photos, answers, state, dataset))
        return
    best = [answers[number][0] if answers.get(number) else (-1, 0.0) for number in order]
    write_submission(args.out, sample, [landmarks.get(label, "") for label, _ in best], [score for _, score in best])
    unread = len(photos) - len(answers)
    print(f"{args.out}: {len(answers):,} photos answered" + (f", {unread:,} could not be read" if unread else ""))
    print(budget(len(photos), took))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="*", help="photos to answer on the screen")
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--index", required=True, help="dataset (folder or s3://…), or embeddings of the run")
    parser.add_argument("--images", type=Path, help="folder of photos, with any folders inside")
    parser.add_argument("--picture", type=Path, help="picture to write of the photos and their neighbors (jpg, png)")
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
    if args.picture and (args.images or args.picture.suffix.lower() not in PICTURES):
        parser.error(f"--picture belongs to photos on the screen, and ends in {', '.join(PICTURES)}")
    return args


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """A file of the form that its ending says, whole or not at all."""
    with whole_file(path) as f:
        Image.fromarray(pixels).save(f, PICTURES[path.suffix.lower()], quality=90)
    print(f"picture: {path}")


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
