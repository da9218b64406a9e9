"""Whether two photos show one thing: keypoints that look alike and lie as a plane seen from two places would have it.

OpenCV's SIFT and ORB need no weights. 2nd place 2020 (W2 and 683f021) verified candidates so, with SuperPoint and
SuperGlue in place of SIFT: at most 1,024 keypoints of photos of 800 pixels, a homography within 4 pixels at confidence
0.99 in 1,000 draws.
"""
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

FRAME = 800  # pixels: distances are measured in photos scaled to this long side
PIXELS = 4.0  # of FRAME
CONFIDENCE = 0.99
DRAWS = 1000
LEAST_SIDE = 8  # pixels; a photo of fewer has no keypoints
LEAST_PAIRS = 4  # pairs that determine a homography
RATIO = 0.8  # Lowe 2004, section 7.1


@dataclass(frozen=True)
class LocalFeatures:
    """N keypoints of a photo, the most pronounced first."""
    points: NDArray[np.float32]
    """(N, 2), x and y in pixels of the photo; (0, 0) is the middle of its first."""
    descriptors: np.ndarray
    """float32 (N, 128), rows of length 1 (SIFT), or uint8 (N, 32), 256 bits each (ORB)."""
    long_side: int
    """Of the photo, pixels."""


@dataclass(frozen=True)
class Inliers:
    """M pairs of points, of photos a and b, that agree on one homography."""
    points_a: NDArray[np.float32]
    """(M, 2), as in LocalFeatures."""
    points_b: NDArray[np.float32]
    """(M, 2)."""
    homography: NDArray[np.float64] | None
    """(3, 3), from a's pixels to b's, [2, 2] = 1; None if M is 0."""

    def __len__(self) -> int:
        return len(self.points_a)


def extract(image: NDArray[np.uint8], *, kind: Literal["sift", "orb"] = "sift", max_keypoints: int = 1024,
            long_side: int = FRAME) -> LocalFeatures:
    """The keypoints of a photo; none in one that is flat or too small to have any.

    Args:
        image: uint8 (H, W, 3), RGB.
        kind: sift: the square roots of its shares (RootSIFT, Arandjelović and Zisserman 2012); orb: nine times as
            fast on photos of 213 pixels and, on the demo, much worse.
        max_keypoints: the most pronounced are kept.
        long_side: pixels; a larger photo is shrunk to it before.

    Equal photos give equal features. Raises ValueError for another shape or dtype.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"a photo is {image.dtype} of shape {image.shape}: give uint8 (H, W, 3)")
    if min(image.shape[:2]) < LEAST_SIDE:
        return _no_features(kind)
    cv2.setNumThreads(1)  # photos are matched side by side, a process for each core
    gray = _at_most(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), long_side)
    found, descriptors = _detector(kind, max_keypoints).detectAndCompute(gray, None)
    if descriptors is None:
        return _no_features(kind)
    order = np.argsort([-point.response for point in found], kind="stable")[:max_keypoints]
    points = np.array([point.pt for point in found], np.float32)[order]
    scale = np.divide(image.shape[1::-1], gray.shape[::-1], dtype=np.float32)
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), 1)
    rows = descriptors if kind == "orb" else np.sqrt(descriptors / sums)
    return LocalFeatures((points + 0.5) * scale - 0.5, rows[order], max(image.shape[:2]))


def verify(a: LocalFeatures, b: LocalFeatures, *, ratio: float = RATIO, pixels: float = PIXELS) -> Inliers:
    """The pairs of keypoints that match and agree on a homography (MAGSAC++, Barath et al. 2020, arXiv 1912.05909).

    Args:
        ratio: a pair must be nearer than this times a's distance to the second nearest of b (Lowe 2004).
        pixels: by how much a pair may miss, in photos scaled to a long side of 800.

    Of pairs that share a point of b, the nearest counts. The same features give the same inliers. Raises ValueError
    for features of two kinds.
    """
    if a.descriptors.dtype != b.descriptors.dtype:
        raise ValueError("features of one kind can be compared, got descriptors of "
                         f"{a.descriptors.dtype} and {b.descriptors.dtype}")
    of_a, of_b = _pairs(a, b, ratio)
    if len(of_a) < LEAST_PAIRS:
        return _no_inliers()
    scale_a, scale_b = (np.diag([FRAME / side, FRAME / side, 1]) for side in (a.long_side, b.long_side))
    found, kept = cv2.findHomography(a.points[of_a] * scale_a[0, 0], b.points[of_b] * scale_b[0, 0], cv2.USAC_MAGSAC,
                                     pixels, None, DRAWS, CONFIDENCE)
    if found is None or not kept.any():
        return _no_inliers()
    inside = kept[:, 0] > 0
    homography = np.linalg.inv(scale_b) @ found @ scale_a
    return Inliers(a.points[of_a[inside]], b.points[of_b[inside]], homography / homography[2, 2])


def _no_features(kind: str) -> LocalFeatures:
    rows = np.zeros((0, 32), np.uint8) if kind == "orb" else np.zeros((0, 128), np.float32)
    return LocalFeatures(np.zeros((0, 2), np.float32), rows, FRAME)


def _no_inliers() -> Inliers:
    return Inliers(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), None)


def _at_most(gray: np.ndarray, long_side: int) -> np.ndarray:
    scale = long_side / max(gray.shape)
    width, height = (max(LEAST_SIDE, round(side * scale)) for side in gray.shape[::-1])
    return cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA) if scale < 1 else gray


def _detector(kind: str, max_keypoints: int) -> Any:
    """OpenCV's; its stubs lack both."""
    if kind == "orb":
        return cv2.ORB_create(nfeatures=max_keypoints)  # type: ignore[attr-defined]
    # without enable_precise_upscale points lie a quarter of a pixel off
    return cv2.SIFT_create(nfeatures=max_keypoints, enable_precise_upscale=True)  # type: ignore[attr-defined]


def _pairs(a: LocalFeatures, b: LocalFeatures, ratio: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of a and of b that match, each row once."""
    norm = cv2.NORM_HAMMING if a.descriptors.dtype == np.uint8 else cv2.NORM_L2
    if not len(a.points) or len(b.points) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    near = cv2.BFMatcher(norm).knnMatch(a.descriptors, b.descriptors, k=2)
    best = sorted((first.distance, first.queryIdx, first.trainIdx) for first, second in near
                  if first.distance < ratio * second.distance)
    of_b = {row_b: row_a for _, row_a, row_b in reversed(best)}  # the nearest is written last
    return np.array(list(of_b.values()), np.int64), np.array(list(of_b), np.int64)
