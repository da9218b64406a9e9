"""What the gallery page is told of a dataset: photos, names, and what each step moved."""
from dataclasses import replace

import numpy as np
import pytest

from retrieval import Pipeline, QuerySet, Vectors
from retrieval.run.gallery import NEIGHBORS, gallery_data, num_shown
from retrieval.steps import Concatenate, FrequentClass, LocalFeatures, Search, Vote
from retrieval.trace import Snapshot, trace
from shards import Dataset


@pytest.fixture(scope="module")
def datasets(dataset_path):
    return Dataset(dataset_path, "test"), Dataset(dataset_path, "train")


@pytest.fixture(scope="module")
def asked(datasets):
    """Random embeddings; query q and gallery row n agree by (q + n) % 7 inliers."""
    rng = np.random.default_rng(0)
    queries, gallery = (side / np.linalg.norm(side, axis=1, keepdims=True)
                        for side in (rng.normal(size=(len(photos), 8)).astype(np.float32) for photos in datasets))
    return QuerySet((Vectors(queries, gallery),), datasets[1].labels.astype(np.int64), datasets[0].truths(),
                     [key.decode() for key in datasets[0].index["key"]],
                     inliers=lambda rows: (np.arange(len(rows))[:, None] + rows) % 7)


@pytest.fixture(scope="module")
def snapshots(asked):
    return trace(asked, Pipeline((Concatenate(), Search(8), LocalFeatures(8, cap=7), Vote(3), FrequentClass(99))))


@pytest.fixture(scope="module")
def shown(asked, snapshots, datasets):
    data = gallery_data("run", asked, snapshots, *datasets)
    return data, {query.key: query for queries in data.queries.values() for query in queries}


def test_every_query_has_its_own_photo_and_truth(shown, asked, datasets):
    data, queries = shown
    assert sorted(queries) == sorted(asked.keys) and (data.num_queries, data.split) == (9, "test")
    for q, key in enumerate(asked.keys):
        query = queries[key]
        assert query.photo == datasets[0].read(q)
        assert query.landmark == "".join(datasets[0].landmark_ids[label] for label in asked.truths[q])
        assert query.right == (query.landmark != "" and query.answer == query.landmark)


def test_steps_show_what_they_moved_and_nothing_else(shown, asked, snapshots, datasets):
    """Concatenation of one run moves nothing, inliers move neighbors, the vote candidates, the last rule nothing."""
    gallery = datasets[1]
    for q, key in enumerate(asked.keys):
        first, same, local, vote, last = shown[1][key].steps
        assert [bool(step.lists) for step in (first, same, local, vote, last)] == [True, False, True, False, False]
        assert vote.candidates and not same.candidates and not last.candidates
        before, found = (snapshots[s].neighbors[0] for s in (0, 2))
        for place, neighbor in enumerate(local.lists[0]):
            row = found.rows[q, place]
            assert neighbor.photo == gallery.read(row) and neighbor.key == gallery.index["key"][row].decode()
            assert neighbor.previous_place == before.rows[q].tolist().index(row) + 1
            assert neighbor.inliers == (q + row) % 7
            assert neighbor.landmark == gallery.landmark_ids[gallery.labels[row]]
            assert neighbor.right == (neighbor.landmark == shown[1][key].landmark)
        assert len(local.lists[0]) == NEIGHBORS and {neighbor.previous_place for neighbor in first.lists[0]} == {0}


def test_candidates_know_where_they_were(shown, asked, snapshots, datasets):
    for q, key in enumerate(asked.keys):
        known = snapshots[2].candidates.labels[q].tolist()
        for place, candidate in enumerate(shown[1][key].steps[3].candidates):
            label = int(snapshots[3].candidates.labels[q, place])
            assert candidate.landmark == datasets[1].landmark_ids[label]
            assert (candidate.previous_place, candidate.previous_score) == (known.index(label) + 1,
                                                            snapshots[2].candidates.scores[q, known.index(label)])


def test_confused_landmarks_have_a_photo_of_each(shown, datasets):
    gallery, data = datasets[1], shown[0]
    assert len(data.confused) == data.num_confused > 0
    for pair in data.confused:
        photos = [gallery.read(row) for row in range(len(gallery))
                  if gallery.landmark_ids[gallery.labels[row]] == pair.answered]
        assert pair.other in photos and pair.shown != pair.answered


def test_no_query_at_all_is_a_page_without_queries(asked, datasets):
    none = replace(asked, models=(replace(asked.models[0], queries=asked.models[0].queries[:0]),), truths=[], keys=[],
                   inliers=lambda rows: rows)
    data = gallery_data("run", none, trace(none, Pipeline()), *datasets)
    assert (data.queries, data.confused, data.figures[-1].gap) == ({}, [], 0)


def test_a_page_has_room_for_few_queries_of_many_lists(snapshots):
    many = [Snapshot("", snapshot.neighbors * 7, snapshot.candidates) for snapshot in snapshots]
    assert num_shown(snapshots) == 36 and num_shown(many) == 1000 // (5 * 7 * 5) == 5
