"""Photos and names from a dataset for pictures of answers, and for the page of evaluate.py --gallery."""
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcshard.names import title
from pages.gallery import (
    ConfusedPair,
    GalleryData,
    TracedCandidate,
    TracedNeighbor,
    TracedQuery,
    TracedStep,
    choose_traced,
    render,
)
from preprocess.images.formats import MAX_PIXELS
from preprocess.images.normalize import normalize
from retrieval import Pipeline, QuerySet
from retrieval.metrics import NO_LANDMARK
from retrieval.pictures import BOX_HEIGHT, Shown, neighbors_picture
from retrieval.run.photos import PhotoAnswer
from retrieval.state import Candidates, Neighbors
from retrieval.trace import Confusion, Snapshot, confusions, places, rank_of_truth, step_figures, trace
from shards import Dataset
from shards.format import key_text

NEIGHBORS = 5  # of a query that a picture or a page shows
QUALITY = 90  # of JPEG
NONE = "no landmark"
QUERIES, PHOTOS = 36, 1000  # of a page at most; a photo takes some 8 kB, so that a page stays below 10 MB
CANDIDATES = 3  # of a query, after each step
PAIRS = 12  # of confused landmarks
ROUNDING = 1e-5  # relative, of scores in float32


def landmark(label: int, gallery: Dataset) -> list[str]:
    """Id, and title if the dataset has names; nothing for no landmark."""
    if label == NO_LANDMARK:
        return []
    known = gallery.landmark_ids[label]
    return [word for word in (known, title(gallery.landmark_names[known])) if word]


def answer_picture(photos: list[Path], answers: list[PhotoAnswer | None], gallery: Dataset,
                   max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), RGB: a row for each photo that has an answer, with the first list's neighbors.

    max_pixels: of a photo, as `answer_photos` had it.
    """
    return neighbors_picture([[_answered(photo, answer, gallery, max_pixels), *_near(answer, gallery)]
                              for photo, answer in zip(photos, answers, strict=True) if answer])


def _answered(photo: Path, answer: PhotoAnswer, gallery: Dataset, max_pixels: int) -> Shown:
    caption = [word for label, score in answer.candidates[:1]
             for word in (f"answer: {score:.4f}", *(landmark(label, gallery) or [NONE]))]
    small = normalize(photo.read_bytes(), BOX_HEIGHT, QUALITY, max_pixels=max_pixels).data
    return Shown(small, [photo.name, *(caption or ["no answer"])])


def _near(answer: PhotoAnswer, gallery: Dataset) -> list[Shown]:
    labels = answer.state.gallery_labels
    return [Shown(gallery.read(row), [f"{place}: {score:.4f}", *(landmark(int(labels[row]), gallery) or [NONE]),
                                      key_text(gallery.index["key"][row])])
            for place, (row, score) in enumerate(answer.neighbors[:NEIGHBORS], 1)]


def gallery_page(who: str, queries: QuerySet, pipeline: Pipeline, photos: Dataset, gallery: Dataset,
                 device: str = "cpu") -> str:
    """HTML of the queries' way through the pipeline. Raises as `trace` and `gallery_data` do.

    Args:
        who: the runs and the pipeline, for people.
        photos, gallery: photo i is row i of the embeddings of queries and gallery.
    """
    return render(gallery_data(who, queries, trace(queries, pipeline, device), photos, gallery))


def gallery_data(who: str, queries: QuerySet, snapshots: list[Snapshot], photos: Dataset,
                 gallery: Dataset) -> GalleryData:
    """All that the page shows of a traced evaluation; raises UserError for a photo that is damaged."""
    maker = QueryMaker(queries, snapshots, photos, gallery)
    chosen = choose_traced(snapshots, queries.truths, num_shown(snapshots))
    last = snapshots[-1].candidates
    pairs = confusions(last.answers, last.confidences, queries.truths)
    return GalleryData(who, photos.split, len(queries.keys), step_figures(snapshots, queries.truths, queries.keys),
                       {heading: [maker.query(q) for q in rows.tolist()] for heading, rows in chosen.items()},
                       len(pairs), [maker.confused(pair) for pair in pairs[:PAIRS]])


def num_shown(snapshots: list[Snapshot]) -> int:
    """Queries that a page has room for, should every step move every list of neighbors; at least one."""
    return max(1, min(QUERIES, PHOTOS // (NEIGHBORS * sum(len(snapshot.neighbors) for snapshot in snapshots))))


class QueryMaker:
    """Makes what the page shows of single queries: photos, names and what each step changed.

    Args: as those of `gallery_page`.
    """

    def __init__(self, queries: QuerySet, snapshots: list[Snapshot], photos: Dataset, gallery: Dataset):
        self.queries, self.snapshots, self.photos, self.gallery = queries, snapshots, photos, gallery
        self.ranks = np.stack([rank_of_truth(snapshot.candidates, queries.truths) for snapshot in snapshots])
        self.places = np.stack([places(snapshot.candidates, queries.truths, queries.keys) for snapshot in snapshots])

    def name(self, label: int) -> str:
        """Id and title, "" for no landmark."""
        return " ".join(landmark(label, self.gallery))

    def query(self, q: int) -> TracedQuery:
        answers = [int(snapshot.candidates.answers[q]) for snapshot in self.snapshots]
        truth = self.queries.truths[q]
        return TracedQuery(self.photos.read(q), self.queries.keys[q],
                           ", ".join(self.name(label) for label in sorted(truth)),
                           self.name(answers[-1]), answers[-1] in truth, len(set(answers)) > 1,
                           [self.step(s, q) for s in range(len(self.snapshots))])

    def step(self, s: int, q: int) -> TracedStep:
        """What step s made of query q; lists and candidates that it left as they were are empty."""
        snapshot, before = self.snapshots[s], self.snapshots[s - 1] if s else None
        lists, candidates = snapshot.neighbors, _first_candidates(snapshot.candidates, q)
        lists_before: Sequence[Neighbors | None] = before.neighbors if before else ()
        if len(lists_before) != len(lists):
            lists_before = [None] * len(lists)
        moved = not all(was and _same(found, was, q) for found, was in zip(lists, lists_before))
        candidates_before = _first_candidates(before.candidates, q) if before else {}
        return TracedStep(snapshot.step,
                          [self.neighbors(*each, q) for each in zip(lists, lists_before)] if moved else [],
                          [] if _same_candidates(candidates, candidates_before)
                          else self.candidates(candidates, before, q),
                          int(self.ranks[s, q]), int(self.places[s, q]))

    def neighbors(self, found: Neighbors, before: Neighbors | None, q: int) -> list[TracedNeighbor]:
        places_before = _places(before.rows[q][before.scores[q] > -np.inf]) if before else {}
        return [self.neighbor(q, row, score, places_before.get(row, 0), inliers) for row, score, inliers in zip(
            found.rows[q, :NEIGHBORS].tolist(), found.scores[q].tolist(),
            [None] * NEIGHBORS if found.inliers is None else found.inliers[q].tolist()) if score > -np.inf]

    def neighbor(self, q: int, row: int, score: float, was: int, inliers: int | None) -> TracedNeighbor:
        label = int(self.queries.gallery_labels[row])
        return TracedNeighbor(self.gallery.read(row), key_text(self.gallery.index["key"][row]), self.name(label),
                              label in self.queries.truths[q], score, was, inliers)

    def candidates(self, found: dict[int, float], before: Snapshot | None, q: int) -> list[TracedCandidate]:
        known = _first_candidates(before.candidates, q, None) if before else {}
        places_before = _places(known)
        return [TracedCandidate(self.name(label), label in self.queries.truths[q], score, places_before.get(label, 0),
                                known.get(label)) for label, score in found.items()]

    def confused(self, pair: Confusion) -> ConfusedPair:
        """With the most confident query, and of the answer's photos that which is nearest to it, or any."""
        q, rows = pair.queries[0], np.flatnonzero(self.queries.gallery_labels == pair.answered)
        listed = self.snapshots[-1].neighbors[0].rows[q]
        near = [*listed[np.isin(listed, rows)], *rows[:1]]
        return ConfusedPair(self.name(pair.shown), self.name(pair.answered), len(pair.queries), self.photos.read(q),
                            self.gallery.read(int(near[0])) if near else None)


def _first_candidates(found: Candidates, q: int, count: int | None = CANDIDATES) -> dict[int, float]:
    """Labels and scores of a query, best first."""
    return {label: score for label, score in zip(found.labels[q, :count].tolist(), found.scores[q].tolist())
            if score > -np.inf}


def _places(items: Iterable[int]) -> dict[int, int]:
    """Each item's place, from 1."""
    return {int(item): place for place, item in enumerate(items, 1)}


def _same(found: Neighbors, before: Neighbors, q: int) -> bool:
    """Whether the shown part of a query's list is what it was, up to rounding."""
    rows, rows_before, scores, scores_before = (getattr(one, name)[q, :NEIGHBORS]
                                                for name in ("rows", "scores") for one in (found, before))
    return ((found.inliers is None) == (before.inliers is None) and np.array_equal(rows, rows_before)
            and np.allclose(scores, scores_before, rtol=ROUNDING))


def _same_candidates(found: dict[int, float], before: dict[int, float]) -> bool:
    return list(found) == list(before) and np.allclose(list(found.values()), list(before.values()), rtol=ROUNDING)
