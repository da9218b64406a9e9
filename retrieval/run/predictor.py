"""Answer photos by a trained run, from Python: `from arcshard import Predictor`."""
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from arcshard import checkpoint as checkpoints
from arcshard.console import UserError
from arcshard.memory import keep_freed_memory
from retrieval import Pipeline, read_pipeline
from retrieval.answers import Answer, Candidate, Neighbor
from retrieval.metrics import NO_LANDMARK
from retrieval.no_landmark import load_threshold, verdict
from retrieval.run.model import Tta
from retrieval.run.photos import PhotoAnswer, answer_photos, load_index
from retrieval.run.unpacked import Photo, UnpackedPhotos, embed_photos

Photos = list[Any] | tuple[Any, ...]
"""Of Photo: typed lists cannot say so."""


class Predictor:
    """Answers photos as predict.py does, which it is behind. Any number of threads may call it at once.

        predictor = Predictor("runs/demo", index="data/demo/dataset")
        answer = predictor("photo.jpg")                     # answer.landmark, .name, .score, .neighbors
        answers = predictor(["a.jpg", "b.png"])             # a list is a batch
        vectors = predictor.embed(["a.jpg", "b.png"])       # float32 (2, D), rows of length 1

    A photo is a path, an image file's bytes, Pillow's image, pixels as uint8 (H, W, 3) in RGB, or a URL of fsspec
    (s3://…, https://…). It is brought into the form that the run's own photos were packed in, and seen as they were.

    Args:
        run: folder that train.py wrote.
        index: dataset, whose train split is the gallery, or embeddings of it that the run has stored.
        device: "cpu", "cuda", or "auto": as the run was trained, if this machine can.
        size: side of the images, pixels; None: the run's.
        tta: further views of each photo.
        pipeline: steps that turn neighbors into answers, or their YAML file; None: the vote of the five nearest.
        ensemble: further runs that answer together with this one.
        checkpoint: file of the run.
        one_word: refuse an index with a landmark id that is not one word, which no submission can hold.

    Raises UserError for a run, index or pipeline that do not fit each other.
    """

    def __init__(self, run: str | Path, index: str | Path, *, device: str = "auto", size: int | None = None,
                 tta: Tta = Tta(), pipeline: Pipeline | str | Path | None = None, ensemble: Sequence[str | Path] = (),
                 checkpoint: str = checkpoints.NAME, one_word: bool = False):
        if size is not None and size < 1:
            raise UserError(f"size is {size}: give at least 1")
        keep_freed_memory()
        self.pipeline = (pipeline if isinstance(pipeline, Pipeline) else
                         read_pipeline(Path(pipeline)) if pipeline else Pipeline())
        self.indexes = [load_index(Path(folder), checkpoint, str(index), self.pipeline,
                                   replace(tta, size=size or tta.size), one_word, device)
                        for folder in (run, *ensemble)]
        self.threshold = load_threshold(Path(run), self.pipeline, [index.gallery.provenance for index in self.indexes])
        """Up to its score a photo probably shows no landmark; None if evaluate.py has fitted none for these steps."""

    @overload
    def __call__(self, photos: Photo) -> Answer: ...

    @overload
    def __call__(self, photos: Photos) -> list[Answer]: ...

    def __call__(self, photos: Photo | Photos) -> Answer | list[Answer]:
        """The answer to a photo, or to each of a list; one that is no image has an answer that says why.

        Raises OSError or UserError for a photo that is not there, and ValueError for an array that is no photo and
        for a step of the pipeline that lacks what it needs.
        """
        if isinstance(photos, list | tuple):
            return [self._answer(found) for found in self.found(photos)]
        return self._answer(self.found([photos])[0])

    def embed(self, photos: Photo | Photos) -> NDArray[np.float32]:
        """Embeddings (n, D) of length 1 by the first run; a photo alone is a list of one.

        Raises as a call does, and UserError for a photo that is no image.
        """
        model = self.indexes[0].model
        listed = photos if isinstance(photos, list | tuple) else [photos]
        vectors, reasons = embed_photos(model, UnpackedPhotos(listed, model.packing))
        for number, reason in enumerate(reasons):
            if reason is not None:
                raise UserError(f"photo {number} of {len(listed)} cannot be read: {reason}")
        return vectors

    def found(self, photos: Sequence[Photo]) -> list[PhotoAnswer | str]:
        """What the pipeline found for each photo, its labels and scores; for one that is no image, the reason."""
        return answer_photos(self.pipeline, self.indexes, photos)

    @cached_property
    def landmark_ids(self) -> dict[int, str]:
        """The landmark id of each of the gallery's labels."""
        gallery = self.indexes[0].gallery
        return dict(zip(gallery.labels.tolist(), gallery.landmark_ids))

    @cached_property
    def landmark_names(self) -> dict[str, str]:
        """The name of each landmark id, "" where there is none; empty if the index is a store of embeddings."""
        photos = self.indexes[0].photos
        return photos.landmark_names if photos else {}

    def _answer(self, found: PhotoAnswer | str) -> Answer:
        if isinstance(found, str):
            return Answer(None, "", 0.0, [], [], unreadable=found)
        candidates = [Candidate(*self._landmark(label), score) for label, score in found.candidates]
        best = next(iter(candidates), Candidate(None, "", 0.0))
        gallery, rows = self.indexes[0].gallery, [row for row, _ in found.neighbors]
        neighbors = [Neighbor(row, gallery.keys[row], *self._landmark(int(gallery.labels[row])), similarity)
                     for row, similarity in zip(rows, found.cosines(rows))]
        return Answer(best.landmark, best.name, best.score, candidates, neighbors, self.is_none(found.candidates))

    def is_none(self, candidates: list[tuple[int, float]]) -> bool:
        """Whether a photo with these labels and scores, best first, probably shows no landmark; False if unknown."""
        label, score = next(iter(candidates), (NO_LANDMARK, 0.0))
        best = score if label != NO_LANDMARK else -np.inf
        return self.threshold is not None and bool(verdict(best, self.threshold.score))

    def _landmark(self, label: int) -> tuple[str | None, str]:
        """Id and name."""
        known = self.landmark_ids.get(label) if label >= 0 else None
        return known, self.landmark_names.get(known or "", "")
