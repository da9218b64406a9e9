"""python -m retrieval serve: a web page that answers the photos dropped on it."""
import argparse
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from arcshard.console import Parser, UserError
from preprocess.images.decode import Rejected
from retrieval import Pipeline
from retrieval.answers import Answer
from retrieval.local_features import extract, verify
from retrieval.pictures import match_picture
from retrieval.run.embed import GALLERY
from retrieval.run.model import Tta, add_answer_options, add_checkpoint, pipeline_of, views_of
from retrieval.run.photos import is_dataset
from retrieval.run.predictor import Predictor
from retrieval.run.unpacked import UnpackedPhotos
from retrieval.steps import NAMES
from retrieval.web import Match, Unreadable
from shards import Dataset

CANDIDATES, NEIGHBORS = 5, 12  # shown of an answer, at most
QUALITY = 90  # of JPEG
MAX_BYTES = 20_000_000  # of an upload
PORT = 8000


@dataclass
class RunAnswerer:
    """Answers photos by a run's predictor; a `retrieval.web.Answerer`."""
    title: str
    predictor: Predictor
    photos: Dataset
    """The gallery's."""

    def answer(self, photo: bytes) -> Answer:
        """The same as that of predict.py, cut to what the page shows."""
        found = self.predictor(photo)
        if found.unreadable:
            raise Unreadable(found.unreadable)
        return replace(found, candidates=found.candidates[:CANDIDATES], neighbors=found.neighbors[:NEIGHBORS])

    def gallery_photo(self, row: int) -> bytes:
        if not 0 <= row < len(self.photos):
            raise IndexError(row)
        return self.photos.read(row)

    def match(self, photo: bytes, row: int) -> Match:
        theirs = simplejpeg.decode_jpeg(self.gallery_photo(row), "RGB")
        mine = self._pixels(photo)
        inliers = verify(extract(mine), extract(theirs))
        return Match(simplejpeg.encode_jpeg(match_picture(mine, theirs, inliers), QUALITY, "RGB"), len(inliers))

    def _pixels(self, photo: bytes) -> NDArray[np.uint8]:
        """uint8 (H, W, 3), RGB. Raises Unreadable."""
        packing = {**self.predictor.indexes[0].model.packing, "short_side": None, "quality": QUALITY}
        try:
            return simplejpeg.decode_jpeg(UnpackedPhotos([photo], packing).read(0), "RGB")
        except Rejected as error:
            raise Unreadable(str(error)) from error


def load_answerer(runs: list[Path], checkpoint: str, dataset: str, pipeline: Pipeline, tta: Tta = Tta()) -> RunAnswerer:
    """What answers with these runs, once it has answered a gallery photo.

    Raises UserError for steps that need more than one photo at a time, and for those that lack what they need.
    """
    if at_once := [NAMES[type(step)] for step in pipeline.steps if "all_queries" in step.needs]:
        raise UserError(f"photos that come one at a time cannot be answered by {' and '.join(at_once)}, which look at "
                        "all queries together: leave them out of --pipeline, or use predict.py --images")
    if not is_dataset(dataset):
        raise UserError(f"{dataset} is no dataset, and the app shows the gallery's photos: give a dataset")
    predictor = Predictor(runs[0], dataset, tta=tta, pipeline=pipeline, ensemble=runs[1:], checkpoint=checkpoint)
    photos = Dataset(dataset, GALLERY, predictor.indexes[0].model.cache)
    answerer = RunAnswerer(f"{' with '.join(run.name for run in runs)}, {len(photos):,} gallery photos of "
                           f"{photos.num_classes:,} landmarks", predictor, photos)
    try:
        answerer.answer(photos.read(0))  # a pipeline that cannot work fails here, not at the first upload
    except ValueError as error:
        raise UserError(f"{dataset}: the pipeline cannot answer: {error}") from error
    return answerer


def add_arguments(parser: Parser) -> None:
    parser.add_argument("dataset", help="whose train split is the gallery: folder or s3://…")
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    add_checkpoint(parser)
    add_answer_options(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0 is any free one")


def serve(args: argparse.Namespace) -> None:
    """Answer until SIGTERM or Ctrl-C. Raises UserError for what cannot be served."""
    try:
        from retrieval.web.app import create_app
        from retrieval.web.server import serve as listen
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs the package {error.name}, which is missing: pip install 'arcshard[serve]'"
                        ) from error
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port is {args.port}: give 0 to 65535")
    answerer = load_answerer([args.run, *args.ensemble], args.checkpoint, args.dataset, pipeline_of(args),
                             views_of(args))
    local = is_loopback(args.host)
    if not local:
        print(f"warning: whoever reaches {args.host} can ask this server and see the gallery's photos; it has no "
              "password and no encryption", flush=True)
    listen(create_app(answerer, MAX_BYTES, [args.host, "localhost"] if local else None), args.host, args.port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
