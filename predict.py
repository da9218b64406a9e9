"""Answer photos: which landmark, with what score.

python predict.py --run runs/demo --index data/demo/dataset --images data/demo/photos/test --out submission.csv
python predict.py --run runs/demo --index data/demo/dataset data/demo/photos/test/001da280f5e12d2b.jpg

The first form writes one row for each photo below --images: id, the file name without its ending, and landmarks,
"<landmark_id> <score>", empty where the photo could not be read. Photos are the files that clean.py --image-folder
takes for photos; others are counted, and hidden ones passed over. --sample takes Kaggle's
sample_submission.csv: it must hold the same ids, and sets the order of the rows. --train-csv takes the contest's
train.csv: if it is the public one of 1,580,470 photos, the sample is copied, since only the hidden rerun counts.
The command ends with the rate at which photos were read, embedded and answered, and the contest's hours at that rate.
The second form prints the five best landmarks of each photo, and "probably no landmark" by the threshold that
evaluate.py fitted with the same --pipeline, --ensemble, --tta and gallery; --picture neighbors.jpg shows the photos
beside their nearest neighbors.

--index is a dataset, whose train split is the gallery, or embeddings written by evaluate.py (RUN/embeddings/train)
or python -m retrieval embed.
Of the run, only its checkpoint is needed. Steps of a --pipeline that compare with photos without landmark take those
of the dataset's val and test splits; the photos to answer must not be among them.
"""
import argparse
import re
import time
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from arcshard.console import Parser, UserError, printable, run
from arcshard.files import whole_file, write_text
from arcshard.trees import files_below
from preprocess.images.formats import MAX_PIXELS, PHOTO_ENDINGS
from retrieval import write_submission
from retrieval.metrics import NO_LANDMARK
from retrieval.run.gallery import answer_picture
from retrieval.run.model import add_answer_options, add_checkpoint, pipeline_of, views_of
from retrieval.run.photos import PhotoAnswer
from retrieval.run.predictor import Predictor
from retrieval.submission import budget, in_sample_order, is_public_train, read_sample

PICTURES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
NO_ANSWER = (NO_LANDMARK, 0.0)


def main() -> None:
    args = parse_args()
    if args.photos:
        show_answers(args)
    elif args.train_csv and is_public_train(args.train_csv):
        write_text(args.out, args.sample.read_text())
        print(f"{args.out}: a copy of {args.sample}, since {args.train_csv} is the public train set")
    else:
        submit(args)


def show_answers(args: argparse.Namespace) -> None:
    """Print the best landmarks of each photo, and draw the picture if one is asked for."""
    photos = check_photos(args.photos)
    predictor = load(args)
    gallery = predictor.indexes[0].photos
    if args.picture and gallery is None:
        raise UserError(f"{args.index} is a store of embeddings, but a picture shows the gallery's photos: give the "
                        "dataset as --index")
    answers = answer(args, predictor, photos)
    listed = [found.candidates if found else None for found in answers]
    none = [found is not None and predictor.is_none(found) for found in listed]
    print(best_five(photos, listed, predictor.landmark_ids, predictor.landmark_names, none))
    if args.picture and gallery and any(answers):
        max_pixels = predictor.indexes[0].model.packing.get("max_pixels", MAX_PIXELS)
        write_picture(args.picture, answer_picture(photos, answers, gallery, max_pixels))


def submit(args: argparse.Namespace) -> None:
    """Write the submission of a folder of photos; print the rate at which they were answered."""
    photos = find_photos(args.images)
    ids = [photo.stem for photo in photos]
    sample = read_sample(args.sample) if args.sample else ids
    order = in_sample_order(ids, sample, args.sample) if args.sample else range(len(ids))
    predictor = load(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    answers = answer(args, predictor, photos)
    took = time.monotonic() - started
    best = [next(iter(found.candidates), NO_ANSWER) if (found := answers[number]) else NO_ANSWER for number in order]
    write_submission(args.out, sample, [predictor.landmark_ids.get(label, "") for label, _ in best],
                     [score for _, score in best])
    unread = [photo.name for photo, found in zip(photos, answers) if found is None]
    print(f"{args.out}: {len(photos) - len(unread):,} photos answered"
          + (f", {len(unread):,} could not be read (first {unread[0]})" if unread else ""))
    print(budget(len(photos), took))


def load(args: argparse.Namespace) -> Predictor:
    """What answers by the options."""
    return Predictor(args.run, args.index, tta=views_of(args), pipeline=pipeline_of(args), ensemble=args.ensemble,
                     checkpoint=args.checkpoint, one_word=bool(args.images))


def answer(args: argparse.Namespace, predictor: Predictor, photos: list[Path]) -> list[PhotoAnswer | None]:
    """What is found for each photo, None where it cannot be read; a step that lacks what it needs is a UserError."""
    try:
        return [None if isinstance(found, str) else found for found in predictor.found(photos)]
    except ValueError as error:
        raise UserError(f"{args.pipeline or args.index}: {error}") from error


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
    """Write an image file in the format of its ending, whole or not at all."""
    with whole_file(path) as f:
        Image.fromarray(pixels).save(f, PICTURES[path.suffix.lower()], quality=90)
    print(f"picture: {path}")


def check_photos(photos: list[Path]) -> list[Path]:
    """The photos, if all are there and have names that can be printed."""
    check_names(map(str, photos))
    missing = next((photo for photo in photos if not photo.is_file()), None)
    if missing:
        raise UserError(f"there is no file {missing} to answer: check the path")
    return photos


def find_photos(folder: Path) -> list[Path]:
    """All photos below the folder, by name; prints how many other files there are.

    Raises UserError if there are no photos, two of one name, a name that no CSV can hold, or a link as in files_below.
    """
    if not folder.is_dir():
        raise UserError(f"--images is no folder: {folder}; check the path")
    files = sorted((folder / name for name in files_below(folder)), key=lambda path: (path.stem, path))
    others = Counter(path.suffix.lower() or "no ending" for path in files if path.suffix.lower() not in PHOTO_ENDINGS)
    if others:
        kinds = ", ".join(f"{ending} {count:,}" for ending, count in others.most_common())
        print(f"left out {others.total():,} other files ({kinds})", flush=True)
    photos = [path for path in files if path.suffix.lower() in PHOTO_ENDINGS]
    if not photos:
        raise UserError(f"--images has no photos: {folder}; check the path")
    check_names(path.stem for path in photos)
    for one, other in pairwise(photos):
        if one.stem == other.stem:
            raise UserError(f"{one} and {other} have the same name, but a submission has one row for each: rename one")
    return photos


def check_names(names: Iterable[str]) -> None:
    """Raise UserError for a name that is not UTF-8 (Python reads its bytes as surrogates) or has a line break or so."""
    wrong = next((name for name in names if re.search("[\0-\x1f\x7f\ud800-\udfff]", name)), None)
    if wrong is not None:
        raise UserError(f"the photo's name {wrong!r} is not UTF-8 or has a control character: rename it")


def best_five(photos: list[Path], candidates: list[list[tuple[int, float]] | None], landmarks: dict[int, str],
              names: dict[str, str], none: list[bool]) -> str:
    """A line for each photo and for each of its candidates: score, landmark id, and name where there is one.

    candidates: labels and scores, best first; None for a photo that could not be read. none: which photos probably show
    no landmark.
    """
    lines = []
    for photo, listed, is_none in zip(photos, candidates, none, strict=True):
        lines.append(f"{photo}" + (": could not be read" if listed is None else
                                   ": probably no landmark of the gallery" if is_none else ""))
        for label, score in (listed or [])[:5]:
            known = landmarks.get(label, "")
            lines.append(f"  {score:9.4f}  {known or 'no landmark'}  {names.get(known, '')}".rstrip())
    return "\n".join(map(printable, lines))


if __name__ == "__main__":
    run(main)
