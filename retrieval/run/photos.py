"""Answer photos that are in no dataset: brought into the form of the run's own, embedded, compared with its gallery."""
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from arcshard.names import check_landmarks
from arcshard.urls import is_url
from retrieval import Embeddings, Pipeline, Vectors
from retrieval.metrics import NO_LANDMARK
from retrieval.pipeline import candidates
from retrieval.run.embed import GALLERY, embed_split, store, stores, with_size
from retrieval.run.model import RunModel, Tta, load_model
from retrieval.run.queries import Matcher, embed_all, holds_queries, non_landmarks
from retrieval.run.unpacked import Photo, UnpackedPhotos, embed_photos
from retrieval.state import State
from retrieval.store import is_store
from shards import Dataset, splits


@dataclass(frozen=True)
class Index:
    """What photos are compared with, by one run."""
    model: RunModel
    gallery: Embeddings
    non_landmarks: NDArray[np.float32] | None
    """(M, D); None where the pipeline does not need them."""
    photos: Dataset | None
    """The gallery's; None if the index is a store of embeddings."""


def load_index(run_folder: Path, name: str, index: str, pipeline: Pipeline, tta: Tta = Tta(),
               submission: bool = False, device: str = "auto") -> Index:
    """A run's checkpoint `name` and the gallery that it compares with.

    Raises UserError if the index is not one of this run, is empty, or lacks what the pipeline needs; for a submission
    also if it has a landmark id that is not one word.
    """
    model = load_model(run_folder, name, tta, device)
    if submission and is_dataset(index):  # before anything is embedded
        check_landmarks(Dataset(index, GALLERY, model.cache).landmark_ids, index)
    gallery = load_gallery(model, index, run_folder)
    if not gallery.keys:
        raise UserError(f"{index} has no photos to compare with: give another --index")
    if not is_dataset(index):
        if submission:
            check_landmarks(filter(None, dict.fromkeys(gallery.landmark_ids)), index)
        for need, what in (("non_landmarks", "with photos without landmark"), ("photos", "photos themselves")):
            if need in pipeline.needs:
                raise UserError(f"{index} holds embeddings only, but this pipeline compares {what}: give the dataset "
                                "as --index")
        return Index(model, gallery, None, None)
    photos = Dataset(index, GALLERY, model.cache)
    if "non_landmarks" not in pipeline.needs:
        return Index(model, gallery, None, photos)
    known = [Dataset(index, split, model.cache) for split in splits(index, model.cache) if holds_queries(split)]
    queries = [dataset for dataset in known if (dataset.labels == NO_LANDMARK).any()]
    if not queries:
        raise UserError(f"{index} has no photo without landmark in a val or test split, but steps of this pipeline "
                        "compare with such photos: pack a test split that holds some, or take the steps out")
    kept = stores(run_folder, model.trained_on, photos)
    return Index(model, gallery, non_landmarks(embed_all(model, queries, kept, keep=False))[0], photos)


def is_dataset(index: str) -> bool:
    """Whether it is a dataset and not a store of embeddings, or nothing."""
    return is_url(index) or Path(index).is_dir() and not is_store(index)


def load_gallery(model: RunModel, index: str, run_folder: Path) -> Embeddings:
    """Embeddings to compare with. Raises UserError if they are another model's."""
    if is_dataset(index):
        photos = Dataset(index, GALLERY, model.cache)
        path = store(stores(run_folder, model.trained_on, photos), GALLERY, model.variant)
        return embed_split(model, photos, path, keep=False)
    gallery = Embeddings.load(Path(index))
    if gallery.provenance.model != model.fingerprint:
        raise UserError(f"{index} is not of the checkpoint in {run_folder}, and embeddings compare only with those of "
                        "the same weights: give a dataset, or embed it again")
    if gallery.provenance.tta != model.tta.name:
        raise UserError(f"{index} was embedded with --tta {gallery.provenance.tta}, not {model.tta.name}, and "
                        "embeddings compare only with those of the same views: give the same --tta")
    if gallery.provenance.size not in model.sizes_in_stores:
        was = f"at {gallery.provenance.size} pixels" if gallery.provenance.size else "by an older version"
        raise UserError(f"{index} was embedded {was}, not at {model.size} pixels as photos are now, and embeddings "
                        "compare only with those of the same size: give the same --size, or embed it again")
    return with_size(gallery, model)


@dataclass(frozen=True)
class PhotoAnswer:
    """What the pipeline found for one photo."""
    state: State
    """Of all photos that were answered together; it has candidates."""
    row: int
    """The photo's among the state's queries."""

    @property
    def candidates(self) -> list[tuple[int, float]]:
        """Labels and scores, best first; -1 is no landmark."""
        found = self.state.candidates
        assert found is not None
        return [(label, score) for label, score in zip(found.labels[self.row].tolist(), found.scores[self.row].tolist())
                if score > -np.inf]

    @property
    def neighbors(self) -> list[tuple[int, float]]:
        """Gallery rows and scores of the first list of neighbors, best first."""
        listed = self.state.neighbors[0]
        return [(row, score) for row, score in zip(listed.rows[self.row].tolist(), listed.scores[self.row].tolist())
                if score > -np.inf]

    def cosines(self, rows: list[int]) -> list[float]:
        """To gallery rows, by the first run's embeddings as no step has changed them."""
        vectors = self.state.sources[0]
        cosines: list[float] = (vectors.gallery[rows].astype(np.float32) @ vectors.queries[self.row]).tolist()
        return cosines


def answer_photos(pipeline: Pipeline, indexes: list[Index], photos: Sequence[Photo]) -> list[PhotoAnswer | str]:
    """An answer for each photo by all runs together; for a photo that cannot be read, the reason.

    Raises ValueError for a step that lacks what it needs, and as `file_of` does.
    """
    unpacked = [UnpackedPhotos(photos, index.model.packing) for index in indexes]
    embedded = [embed_photos(index.model, each) for index, each in zip(indexes, unpacked, strict=True)]
    reasons = [next(filter(None, found), None) for found in zip(*(unread for _, unread in embedded), strict=True)]
    read = [i for i, reason in enumerate(reasons) if reason is None]
    if not read:
        return [reason or "" for reason in reasons]
    first = indexes[0]
    models = tuple(Vectors(vectors[read], index.gallery.vectors, index.non_landmarks, index.model.centers)
                   for index, (vectors, _) in zip(indexes, embedded, strict=True))
    inliers = Matcher(UnpackedPhotos([photos[i] for i in read], first.model.packing), first.photos)\
        if first.photos else None
    state = pipeline.apply(State(models, first.gallery.labels, first.model.device.type, models,
                                 keys=[name_of(photos[i]) for i in read], inliers=inliers))
    state = replace(state, candidates=candidates(state))
    rows = iter(range(len(read)))
    return [reason or PhotoAnswer(state, next(rows)) for reason in reasons]


def name_of(photo: Photo) -> str:
    """A path's file name without its ending; "" for a photo in memory."""
    return Path(photo).stem if isinstance(photo, str | Path) else ""
