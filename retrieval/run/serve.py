"""python -m retrieval serve: a web page that answers the photos dropped on it."""
import argparse
import tempfile
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from arcshard.console import Parser, UserError
from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from retrieval import Pipeline, read_pipeline
from retrieval.local_features import extract, match_picture, verify
from retrieval.pipeline import candidates
from retrieval.run.model import add_answer_options, add_checkpoint
from retrieval.run.photos import Index, is_dataset, load_index, state_of
from retrieval.run.queries import GALLERY
from retrieval.state import Neighbors, State
from retrieval.steps import Quantile, Rerank
from retrieval.web import Answer, Candidate, Match, Neighbor, Unreadable
from shards import Dataset

# Answers of a run to photos that come one at a time, for the web app.

SHOWN = 5  # candidates
NEIGHBORS = 12
QUALITY = 90  # of JPEG
OF_ALL_QUERIES = (Quantile, Rerank)  # steps that fit something on the queries as a whole


@dataclass
class RunAnswerer:
    """A `retrieval.web.Answerer`: the steps of `pipeline` on the runs' embeddings."""
    title: str
    pipeline: Pipeline
    indexes: list[Index]
    photos: Dataset
    """The gallery's."""

    def answer(self, photo: bytes) -> Answer:
        """That of predict.py: each run packs the photo as its own."""
        with tempfile.TemporaryDirectory(prefix="arcshard-") as work:
            path = Path(work) / "photo.jpg"
            path.write_bytes(photo)
            _, state = state_of(self.pipeline, self.indexes, [path], Path(work))
        if state is None:
            self._pixels(photo)  # says why
            raise Unreadable("it could not be packed")
        return Answer(self._candidates(state), self._neighbors(state))

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
        try:
            return simplejpeg.decode_jpeg(normalize(photo, None, QUALITY).data, "RGB")
        except Rejected as error:
            raise Unreadable(str(error)) from error

    def _candidates(self, state: State) -> list[Candidate]:
        found, names = candidates(state), self.photos.landmark_names
        ids = [self.photos.landmark_ids[label] if label >= 0 else "" for label in found.labels[0].tolist()]
        return [Candidate(landmark, names.get(landmark, ""), score)
                for landmark, score in zip(ids, found.scores[0].tolist()) if score > -np.inf][:SHOWN]

    def _neighbors(self, state: State) -> list[Neighbor]:
        listed: Neighbors = state.neighbors[0]
        rows = listed.rows[0][listed.scores[0] > -np.inf][:NEIGHBORS]
        vectors = state.sources[0]
        cosines = vectors.gallery[rows].astype(np.float32) @ vectors.queries[0]
        gallery, names = self.indexes[0].gallery, self.photos.landmark_names
        return [Neighbor(row, gallery.keys[row], gallery.landmark_ids[row],
                         names.get(gallery.landmark_ids[row], ""), cosine)
                for row, cosine in zip(rows.tolist(), cosines.tolist())]


def load_answerer(runs: list[Path], checkpoint: str, dataset: str, pipeline: Pipeline) -> RunAnswerer:
    """What answers with these runs, once it has answered a gallery photo.

    Raises UserError for steps that need more than one photo at a time, and for those that lack what they need.
    """
    if any(isinstance(step, OF_ALL_QUERIES) for step in pipeline.steps):
        raise UserError("photos that come one at a time cannot be answered by quantile and rerank, which look at all "
                        "queries together: leave them out of --pipeline, or use predict.py --images")
    if not is_dataset(dataset):
        raise UserError(f"the app shows the gallery's photos, but {dataset} is no dataset: give one")
    indexes = [load_index(run, checkpoint, dataset, pipeline) for run in runs]
    photos = Dataset(dataset, GALLERY, indexes[0].model.cache)
    answerer = RunAnswerer(f"{' with '.join(run.name for run in runs)}, {len(photos):,} gallery photos of "
                           f"{photos.num_classes:,} landmarks", pipeline, indexes, photos)
    try:
        answerer.answer(photos.read(0))  # a list that cannot work fails here, not at the first upload
    except ValueError as error:
        raise UserError(f"{dataset}: these answers do not go with it: {error}") from error
    return answerer


MAX_BYTES = 20_000_000  # of an upload
PORT = 8000


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
        from retrieval import web
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs {error.name}: pip install -e '.[serve]'") from error
    if not 0 <= args.port < 1 << 16:
        raise UserError(f"--port must be from 0 to 65535, not {args.port}")
    pipeline = read_pipeline(args.pipeline) if args.pipeline else Pipeline()
    answerer = load_answerer([args.run, *args.ensemble], args.checkpoint, args.dataset, pipeline)
    local = is_loopback(args.host)
    if not local:
        print(f"warning: whoever reaches {args.host} can ask this server and see the gallery's photos; it has no "
              "password and no encryption", flush=True)
    web.serve(web.create_app(answerer, MAX_BYTES, [args.host, "localhost"] if local else None), args.host, args.port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
