"""Two photos match where one is a view of the other, and nothing else crashes or matches."""
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.local_features import Inliers, LocalFeatures, extract, verify

VIEW = np.array([[0.9, -0.15, 40], [0.12, 1.05, -10], [1e-4, -5e-5, 1]])


def scene(seed=0, height=300, width=400):
    """A photo of many colored patches at several scales."""
    rng = np.random.default_rng(seed)
    coarse, fine = (cv2.resize(rng.uniform(0, 255, (height // cell, width // cell, 3)).astype(np.float32),
                               (width, height), interpolation=cv2.INTER_CUBIC) for cell in (25, 8))
    return np.clip(0.6 * coarse + 0.4 * fine, 0, 255).astype(np.uint8)


def through(homography, points):
    mapped = np.hstack([points, np.ones((len(points), 1))]).astype(np.float64) @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_a_view_of_a_scene_matches_by_the_homography_that_made_it(kind):
    one = scene()
    other = cv2.warpPerspective(one, VIEW, (420, 330))
    found = verify(extract(one, kind=kind), extract(other, kind=kind))
    assert len(found) > 50
    corners = np.array([[100, 80], [300, 80], [300, 220], [100, 220]])
    np.testing.assert_allclose(through(found.homography, corners), through(VIEW, corners), atol=1.0)
    missed = np.linalg.norm(through(found.homography, found.points_a) - found.points_b, axis=1)
    assert missed.max() < 4.0 and found.homography[2, 2] == 1
    assert len(np.unique(found.points_b, axis=0)) > 0.8 * len(found)  # two orientations may share a place
    assert len(verify(extract(one, kind=kind), extract(scene(1), kind=kind))) < 12


def test_points_are_in_pixels_of_the_given_photo_whatever_it_was_shrunk_to():
    """A corner at a known place is found there from a photo shrunk to a third; distances are those of 800 pixels."""
    small = scene(2)
    large = cv2.resize(small, (1200, 900), interpolation=cv2.INTER_LINEAR)
    found = verify(extract(large, long_side=400), extract(small))
    assert len(found) > 100
    np.testing.assert_allclose((found.points_a + 0.5) / 3 - 0.5, found.points_b, atol=1.0)
    assert np.median(np.abs((found.points_a + 0.5) / 3 - 0.5 - found.points_b)) < 0.1
    strict = verify(extract(large, long_side=400), extract(small), pixels=0.01)
    assert len(strict) < len(found)


def test_the_most_pronounced_keypoints_are_kept_and_descriptors_have_length_one():
    few, many = extract(scene(), max_keypoints=20), extract(scene())
    assert len(few.points) == 20 and few.points.dtype == np.float32 and many.long_side == 400
    np.testing.assert_allclose(np.linalg.norm(many.descriptors, axis=1), 1, atol=1e-4)
    orb = extract(scene(), kind="orb", max_keypoints=20)
    assert 10 < len(orb.points) <= 20 and orb.descriptors.shape == (len(orb.points), 32)
    assert orb.descriptors.dtype == np.uint8


def test_matching_is_the_same_every_time():
    one, other = extract(scene()), extract(cv2.warpPerspective(scene(), VIEW, (420, 330)))
    again = extract(scene())
    assert np.array_equal(one.points, again.points) and np.array_equal(one.descriptors, again.descriptors)
    first, second = verify(one, other), verify(again, other)
    assert np.array_equal(first.points_a, second.points_a) and np.array_equal(first.homography, second.homography)


@pytest.mark.parametrize("kind", ["sift", "orb"])
@pytest.mark.parametrize("height, width", [(0, 0), (0, 9), (1, 1), (1, 2000), (3, 5), (64, 64)])
def test_photos_without_keypoints_match_nothing(kind, height, width):
    flat = extract(np.full((height, width, 3), 90, np.uint8), kind=kind)
    assert flat.points.shape == (0, 2)
    for a, b in ((flat, flat), (flat, extract(scene(), kind=kind)), (extract(scene(), kind=kind), flat)):
        found = verify(a, b)
        assert len(found) == 0 and found.homography is None and found.points_b.shape == (0, 2)


@settings(max_examples=60)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_any_keypoints_can_be_compared(num_a, num_b, seed, places, alike):
    """Points on a line, all in one place, equal descriptors: as many inliers as pairs at most, and finite numbers."""
    rng = np.random.default_rng(seed)

    def features(number):
        descriptors = np.abs(rng.normal(size=(number, 128))) if not alike else np.eye(128)[:number]
        return LocalFeatures(rng.integers(0, places, (number, 2)).astype(np.float32),
                             descriptors.astype(np.float32), places)

    found = verify(features(num_a), features(num_b), ratio=0.99)
    assert isinstance(found, Inliers) and len(found) <= min(num_a, num_b) and len(found.points_b) == len(found)
    assert (found.homography is None) == (len(found) == 0)
    assert found.homography is None or np.isfinite(found.homography).all()


def test_of_pairs_that_share_a_point_the_nearest_counts():
    eye = np.eye(128, dtype=np.float32)
    corners = np.array([[0, 0], [90, 0], [0, 90], [90, 90]], np.float32)
    near_first = np.vstack([eye[:4], 0.9 * eye[:1] + 0.1 * eye[9:10]])  # the fifth of a looks like b's first too
    a = LocalFeatures(np.vstack([corners, [[0, 0]]]).astype(np.float32), near_first, 100)
    assert len(verify(a, LocalFeatures(corners + 5, eye[:4], 100))) == 4


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"float32 of shape \(4, 4, 3\): give uint8 \(H, W, 3\)"):
        extract(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="features of one kind can be compared, got descriptors of float32 and uint8"):
        verify(extract(scene()), extract(scene(), kind="orb"))
