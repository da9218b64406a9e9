"""Answer photos that are in no dataset: packed like the run's own, embedded, compared with its gallery."""
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import simplejpeg
from numpy.typing import NDArray

from arcshard.console import UserError, progress
from arcshard.urls import is_url
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from preprocess.packing.publish import NothingPacked
from retrieval import Embeddings, Pipeline, Vectors
from retrieval.local_features import LocalFeatures, extract, verify
from retrieval.pipeline import candidates
from retrieval.run.embed import embed_split, store
from retrieval.run.model import RunModel, Tta, load_model
from retrieval.run.queries import GALLERY, non_landmarks, query_splits
from retrieval.state import State
from retrieval.store import is_store
from shards import Dataset

# Inliers between the photos of two datasets, for steps that compare photos.

KEPT = 1000  # photos whose features stay in memory, 0.6 MB each at most


class Matcher:
    """Counts the inliers of queries with gallery rows (`retrieval.state.CountInliers`); no pair is compared twice.

    Args: queries, gallery: the photos, sample i of each being row i of its embeddings.
    """

    def __init__(self, queries: Dataset, gallery: Dataset):
        self.queries, self.gallery = queries, gallery
        self.known: dict[tuple[int, int], int] = {}
        self.features = lru_cache(KEPT)(_features)

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(Q, K) of gallery rows (Q, K), by as many threads as there are cores: OpenCV lets go of the interpreter."""
        work = [(q, unknown) for q, listed in enumerate(rows.tolist())
                if (unknown := [row for row in listed if (q, row) not in self.known])]
        threads = joblib.Parallel(joblib.cpu_count(), backend="threading", return_as="generator")
        found: Iterator[list[int]] = threads(joblib.delayed(self._inliers)(q, listed) for q, listed in work)
        for counts, (q, listed) in zip(progress(found, total=len(work), unit="queries", what="compare photos",
                                                disable=not work), work):
            self.known.update(((q, row), count) for row, count in zip(listed, counts))
        return np.array([[self.known[q, row] for row in listed] for q, listed in enumerate(rows.tolist())],
                        np.int64).reshape(rows.shape)

    def _inliers(self, q: int, rows: list[int]) -> list[int]:
        query = _features(self.queries, q)
        return [len(verify(query, self.features(self.gallery, row))) for row in rows]


def _features(dataset: Dataset, i: int) -> LocalFeatures:
    return extract(simplejpeg.decode_jpeg(dataset.read(i), "RGB"))


QUERY = "query"


@dataclass(frozen=True)
class Index:
    """What photos are compared with, by one run."""
    model: RunModel
    gallery: Embeddings
    non_landmarks: np.ndarray | None
    photos: Dataset | None
    """The gallery's; None if it is a store of embeddings."""


def load_index(run_folder: Path, name: str, index: str, pipeline: Pipeline, tta: Tta = Tta()) -> Index:
    """A run and what it compares with. Raises UserError if the index is not one of this run, or empty."""
    model = load_model(run_folder, name, tta)
    gallery = load_gallery(model, index, run_folder)
    if not gallery.keys:
        raise UserError(f"photos are compared with those of the index, but {index} has none: give another")
    if not is_dataset(index):
        if pipeline.needs_non_landmarks or pipeline.needs_photos:
            what = "with photos without landmark" if pipeline.needs_non_landmarks else "photos themselves"
            raise UserError(f"these answers compare {what}, but {index} holds embeddings: give the dataset as --index")
        return Index(model, gallery, None, None)
    photos = Dataset(index, GALLERY, model.cache)
    if not pipeline.needs_non_landmarks:
        return Index(model, gallery, None, photos)
    embedded = {split: embed_split(model, Dataset(index, split, model.cache), store(run_folder, split, tta),
                                   keep=False) for split in query_splits(index, model.cache)}
    return Index(model, gallery, non_landmarks(embedded)[0], photos)


def is_dataset(index: str) -> bool:
    """Whether it is a dataset and not a store of embeddings, or nothing."""
    return is_url(index) or Path(index).is_dir() and not is_store(index)


def load_gallery(model: RunModel, index: str, run_folder: Path) -> Embeddings:
    """Embeddings to compare with. Raises UserError if they are another model's."""
    if is_dataset(index):
        path = store(run_folder, GALLERY, model.tta)
        return embed_split(model, Dataset(index, GALLERY, model.cache), path, keep=False)
    gallery = Embeddings.load(Path(index))
    if gallery.provenance.model != model.fingerprint:
        raise UserError(f"embeddings compare only with those of the same weights, but {index} is not of the "
                        f"checkpoint in {run_folder}: give a dataset, or embed it again")
    if gallery.provenance.tta != model.tta.name:
        raise UserError(f"embeddings compare only with those of the same views, but {index} has --tta "
                        f"{gallery.provenance.tta}, not {model.tta.name}: give that")
    return gallery


def state_of(pipeline: Pipeline, indexes: list[Index], photos: list[Path], where: Path | None = None
             ) -> tuple[list[int], State | None]:
    """The numbers of the photos that could be read, and what the steps make of these; None if there are none.

    where: folder that the packed photos lie in meanwhile; default: the system's for temporary files.
    Raises ValueError for a step that lacks what it needs.
    """
    with tempfile.TemporaryDirectory(prefix=".queries-", dir=where) as work:
        packed = [pack_photos(photos, Path(work) / str(i), index.model.packing) for i, index in enumerate(indexes)]
        queries = [dataset for dataset in packed if dataset is not None]
        if not queries:
            return [], None
        numbers = [number_of(key.decode()) for key in queries[0].index["key"]]
        return numbers, answer(pipeline, indexes, queries, [photos[number].stem for number in numbers])


def answers_of(numbers: list[int], state: State | None) -> dict[int, list[tuple[int, float]]]:
    """Labels and scores, best first, by the number of each photo that could be read (`state_of`)."""
    if state is None:
        return {}
    found = candidates(state)
    pairs = [[(label, score) for label, score in zip(labels, scores) if score > -np.inf]
             for labels, scores in zip(found.labels.tolist(), found.scores.tolist())]
    return dict(zip(numbers, pairs, strict=True))


def pack_photos(photos: list[Path], work: Path, packing: dict[str, Any]) -> Dataset | None:
    """Bring the photos into the normal form that the training photos had; None if none could be read."""
    images = work / "images"
    images.mkdir(parents=True)
    for number, photo in enumerate(photos):
        (images / f"{key_of(number)}.jpg").symlink_to(photo.resolve())
    keys = [key_of(number) for number in range(len(photos))]
    samples = pd.DataFrame({"id": keys, "landmark_id": "", "label": -1, "split": QUERY})
    options = PackOptions(short_side=packing.get("short_side"), quality=packing.get("quality", 90))  # not if adopted
    try:
        pack(samples, [images], work / "dataset", options, Engine(min(joblib.cpu_count(), len(photos))))
    except NothingPacked:
        return None
    return Dataset(work / "dataset", QUERY)


def answer(pipeline: Pipeline, indexes: list[Index], queries: list[Dataset], keys: list[str]) -> State:
    """What the steps make of the photos, packed for each run, by all runs together; keys are their names."""
    models = tuple(Vectors(embed_split(index.model, photos, None).vectors, index.gallery.vectors, index.non_landmarks,
                           index.model.centers) for index, photos in zip(indexes, queries, strict=True))
    first = indexes[0]
    inliers = Matcher(queries[0], first.photos) if first.photos else None
    return pipeline.apply(State(models, first.gallery.labels, first.model.device.type, models, keys=keys,
                                inliers=inliers))


def key_of(number: int) -> str:
    """A key that the format allows, whatever the photo is called; keys sort as the photos do."""
    return f"photo_{number:09d}"


def number_of(key: str) -> int:
    return int(key.removeprefix("photo_"))
