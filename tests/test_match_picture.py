"""The picture of two photos and their inliers."""
import numpy as np
import pytest

from retrieval.local_features import GAP, HEIGHT, WIDTH, Inliers, match_picture


def inliers(*points):
    rows = np.array(points, np.float32).reshape(-1, 4)
    return Inliers(rows[:, :2], rows[:, 2:], np.eye(3) if len(rows) else None)


def test_a_line_joins_the_two_places_of_an_inlier():
    black = np.zeros((240, 320, 3), np.uint8)
    picture = match_picture(black, black, inliers((10, 119.5, 300, 119.5)))
    assert picture.shape == (HEIGHT, 2 * 640 + GAP, 3)
    rows, columns = np.nonzero(picture[:, :640].any(axis=2))  # the photo left, twice as large
    assert abs(rows.mean() - 239.5) < 1 and abs(columns.min() - 21) <= 5 and columns.max() == 639
    assert np.nonzero(picture[:, 640 + GAP:].any(axis=2))[1].max() == pytest.approx(601, abs=5)


@pytest.mark.parametrize("shape", [(2, 8000), (8000, 2), (1, 1), (1, 65_500)])
def test_photos_of_any_shape_have_a_picture(shape):
    photo = np.full((*shape, 3), 90, np.uint8)
    picture = match_picture(photo, photo, inliers())
    assert picture.dtype == np.uint8 and picture.shape[0] == HEIGHT and picture.shape[1] <= 2 * WIDTH + GAP
    assert (picture == 90).any()
