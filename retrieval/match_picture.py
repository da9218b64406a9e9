"""Two photos side by side, with a line from each inlier to its partner."""
import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.local_features import Inliers

HEIGHT = 480  # pixels of each photo, unless it is very wide
WIDTH = 1440  # at most
GAP = 8
SHIFT = 4  # bits behind the point in OpenCV's coordinates: lines end at a sixteenth of a pixel


def match_picture(a: NDArray[np.uint8], b: NDArray[np.uint8], inliers: Inliers) -> NDArray[np.uint8]:
    """uint8 (480, W, 3), RGB. a, b: the photos, uint8 (H, W, 3), RGB, in whose pixels the inliers are given."""
    left, right = _fitted(a), _fitted(b)
    beside = left.shape[1] + GAP
    picture = np.full((HEIGHT, beside + right.shape[1], 3), 255, np.uint8)
    picture[:len(left), :left.shape[1]] = left
    picture[:len(right), beside:] = right
    ends_a = _scaled(inliers.points_a, a, left)
    ends_b = _scaled(inliers.points_b, b, right) + (beside, 0)
    for i, ends in enumerate(zip(_fixed(ends_a), _fixed(ends_b))):
        colour = _colour(i, len(inliers))
        cv2.line(picture, *ends, colour, 1, cv2.LINE_AA, SHIFT)
        for end in ends:
            cv2.circle(picture, end, 3 << SHIFT, colour, 1, cv2.LINE_AA, SHIFT)
    return picture


def _fitted(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = min(HEIGHT / photo.shape[0], WIDTH / photo.shape[1])
    width, height = (max(1, round(side * scale)) for side in photo.shape[1::-1])
    return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _scaled(points: NDArray[np.float32], photo: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Pixels of the photo -> pixels of its picture; (0, 0) is the middle of the first of both."""
    scale = np.divide(shown.shape[1::-1], photo.shape[1::-1])
    return (points + 0.5) * scale - 0.5


def _fixed(points: np.ndarray) -> list[tuple[int, int]]:
    return [(x, y) for x, y in np.round(points * (1 << SHIFT)).astype(int).tolist()]


def _colour(i: int, count: int) -> tuple[int, int, int]:
    """Of line i, RGB: a turn of hues, so that neighbouring lines can be told apart."""
    hue = np.array([[[round(180 * i / max(1, count)) % 180, 220, 255]]], np.uint8)
    red, green, blue = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue
