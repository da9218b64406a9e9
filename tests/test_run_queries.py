"""Queries of a dataset: inliers between the photos of two splits."""
import numpy as np
import pytest
import simplejpeg

from retrieval.local_features import extract, verify
from retrieval.run import queries
from retrieval.run.queries import Matcher
from shards import Dataset


@pytest.fixture
def matcher(dataset_path):
    return Matcher(Dataset(dataset_path, "val"), Dataset(dataset_path, "train"))


def test_inliers_are_those_of_the_photos_and_tell_the_class(matcher):
    rows = np.random.default_rng(0).integers(0, 60, (18, 4))
    found = matcher(rows)
    for q, k in ((0, 0), (7, 3), (17, 2)):
        one, other = (extract(simplejpeg.decode_jpeg(dataset.read(i), "RGB"))
                      for dataset, i in ((matcher.queries, q), (matcher.gallery, rows[q, k])))
        assert found[q, k] == len(verify(one, other))
    same = matcher.queries.labels[:, None] == matcher.gallery.labels[rows]
    assert np.median(found[same]) > 5 * np.median(found[~same])


def test_no_pair_is_compared_twice(matcher, monkeypatch):
    rows = np.array([[3, 4], [5, 3]])
    first = matcher(rows)
    monkeypatch.setattr(queries, "verify", None)
    assert np.array_equal(matcher(rows[:, ::-1]), first[:, ::-1])
    assert matcher(np.zeros((0, 2), np.int64)).shape == (0, 2)
