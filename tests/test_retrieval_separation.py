"""Cosines to the nearest photo of the own landmark and of another, against all of them."""
import numpy as np
import pytest

from retrieval.evaluation import own_and_other


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_equals_the_greatest_of_all_products(chunk):
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(20, 8)).astype(np.float32), rng.normal(size=(50, 8)).astype(np.float32)
    labels, gallery_labels = rng.integers(-1, 12, 20), rng.integers(-1, 9, 50)
    own, other = own_and_other(queries, labels, gallery, gallery_labels, chunk)
    products = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    for i, label in enumerate(labels):
        same = (gallery_labels == label) & (label >= 0)
        assert own[i] == pytest.approx(products[i, same].max(initial=-np.inf), abs=1e-5)
        assert other[i] == pytest.approx(products[i, ~same].max(initial=-np.inf), abs=1e-5)
    assert (own == -np.inf).any() and own.dtype == other.dtype == np.float32


def test_a_gallery_of_one_landmark_has_no_other():
    own, other = own_and_other(np.eye(2, dtype=np.float32), np.zeros(2, np.int64), np.eye(2, dtype=np.float32)[:1],
                               np.zeros(1, np.int64))
    assert own.tolist() == [1, 0] and other.tolist() == [-np.inf] * 2
