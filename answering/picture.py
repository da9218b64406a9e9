"""A picture of photos that were answered, with their neighbours."""
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocess.normal_form.normalise import normalise
from retrieval.neighbours_picture import HEIGHT, Shown, neighbours_picture
from retrieval.state import State
from shards import Dataset

NEIGHBOURS = 5
QUALITY = 90  # of JPEG


def answer_picture(photos: list[Path], answers: dict[int, list[tuple[int, float]]], state: State,
                   gallery: Dataset) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), RGB: a row for each photo that was answered, with the first list's neighbours.

    Args: photos, answers, state: as `answering.photos.state_of` and `answers_of` have them.
    """
    return neighbours_picture([[_query(photos[number], listed[:1], gallery), *_neighbours(state, i, gallery)]
                               for i, (number, listed) in enumerate(answers.items())])


def _query(photo: Path, best: list[tuple[int, float]], gallery: Dataset) -> Shown:
    words = [word for label, score in best for word in (f"answer: {score:.4f}", *_named(label, gallery))]
    return Shown(normalise(photo.read_bytes(), HEIGHT, QUALITY).data, [photo.name, *(words or ["no answer"])])


def _neighbours(state: State, i: int, gallery: Dataset) -> list[Shown]:
    listed = state.neighbours[0]
    return [Shown(gallery.read(row), [f"{place}: {score:.4f}", *_named(int(state.gallery_labels[row]), gallery),
                                      gallery.index["key"][row].decode()])
            for place, (row, score) in enumerate(zip(listed.rows[i, :NEIGHBOURS].tolist(),
                                                     listed.scores[i].tolist()), 1) if score > -np.inf]


def _named(label: int, gallery: Dataset) -> list[str]:
    """Landmark id, and name if there is one."""
    landmark = gallery.landmark_ids[label] if label >= 0 else "no landmark"
    return [word for word in (landmark, gallery.landmark_names.get(landmark, "")) if word]
