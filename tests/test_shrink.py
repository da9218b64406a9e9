"""Photos are scaled down without aliasing, against float64 references, and never up."""
import io

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.images.decode import blur_reach, blur_sigma, decode, shrink, target_size
from preprocess.images.normalize import normalize
from shards.jpeg import read_header
from tests.pictures import antialiased, encoded, exif_of, normal_jpeg, pixels, scene, texture, turned, with_orientation

SIDES = st.integers(1, 90)


@settings(max_examples=300)
@given(width=SIDES, height=SIDES, short_side=SIDES | st.none())
@example(width=3000, height=2, short_side=1)
@example(width=65500, height=3, short_side=2)
def test_target_size_caps_the_short_side_and_keeps_the_shape(width, height, short_side):
    new_width, new_height = target_size(width, height, short_side)
    assert min(new_width, new_height) == min(width, height, short_side or width)
    assert new_width <= width and new_height <= height
    scale = min(new_width, new_height) / min(width, height)
    assert max(abs(new_width - width * scale), abs(new_height - height * scale)) <= 0.5


@settings(max_examples=200)
@given(width=SIDES, height=SIDES, short_side=SIDES, channels=st.sampled_from([1, 3, 4]))
@example(width=90, height=88, short_side=80, channels=3)
def test_shrinking_is_a_gaussian_and_linear_interpolation(width, height, short_side, channels):
    """OpenCV's Gaussian has weights of 8 bits: noise, the worst picture, came out wrong by up to 1.7 gray levels."""
    picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    size = target_size(width, height, short_side)
    off = np.abs(shrink(picture, *size) - blurred_and_interpolated(picture, *size))
    assert off.max() <= 2.5 and off.mean() <= 0.7


def blurred_and_interpolated(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Float64 reference of shrink: both steps as matrices of rows and columns."""
    if (height, width) == picture.shape[:2]:
        return picture.astype(float)
    sigma = blur_sigma(max(picture.shape[:2]) / max(width, height))
    blur = [gaussian(side, sigma) if sigma else np.eye(side) for side in picture.shape[:2]]
    rows, columns = linear(picture.shape[0], height) @ blur[0], linear(picture.shape[1], width) @ blur[1]
    return np.einsum("ih,hwc,jw->ijc", rows, picture, columns, optimize=True)


def gaussian(side: int, sigma: float) -> np.ndarray:
    """(side, side), mirrored at the borders without repeating the border's pixel."""
    reach = blur_reach(sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    matrix = np.zeros((side, side))
    mirror = np.abs((np.arange(-reach, side + reach) + side - 1) % (2 * side - 2 or 1) - (side - 1))
    for row in range(side):
        np.add.at(matrix[row], mirror[row:row + 2 * reach + 1], weights / weights.sum())
    return matrix


def linear(old: int, new: int) -> np.ndarray:
    """(new, old): each new pixel's center between those of two old ones."""
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.clip(1 - np.abs(at[:, None] - np.arange(old)), 0, None)


@pytest.mark.parametrize("scale", [1.02, 1.17, 1.5, 2.08, 2.9, 4.2, 7.9])
def test_nothing_aliases(scale):
    """39 dB below the peak: 2.9 gray levels. Interpolation alone, at scales where that aliases, is worse."""
    picture = np.asarray(texture(640, 480))
    size = round(640 / scale), round(480 / scale)
    reference = antialiased(picture, *size)
    assert decibels(shrink(picture, *size), reference) > 39
    if scale > 2:
        assert decibels(cv2.resize(picture, size), reference) < 36


def decibels(picture: np.ndarray, reference: np.ndarray) -> float:
    return -10 * np.log10(np.mean((picture / 255 - reference / 255) ** 2))


@pytest.mark.parametrize("form, options", [("JPEG", {"quality": 98, "subsampling": "4:2:0"}), ("PNG", {})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_shrunk_to_what_the_eye_would_see(form, options, orientation):
    stored = np.asarray(scene(120, 80))
    data = encoded(scene(120, 80), form, exif=exif_of(orientation), **options)
    upright = turned(stored, orientation).astype(float)
    width, height = (45, 30) if upright.shape[1] > upright.shape[0] else (30, 45)
    packed = normalize(data, 30, 98)
    assert (packed.width, packed.height) == (width, height)
    assert np.abs(pixels(packed.data) - antialiased(upright, width, height)).mean() < 3


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size, decoded_at", [
    ((800, 600), 1), ((799, 601), 1), ((1601, 1203), 0.5), ((3300, 2500), 0.25)])
def test_large_photos_are_decoded_at_a_fraction_and_lose_nothing(size, decoded_at, orientation):
    """Against the photo decoded whole, encoding loss included."""
    data = encoded(texture(*size), quality=92, subsampling="4:2:0", exif=exif_of(orientation))
    whole = turned(np.asarray(Image.open(io.BytesIO(data)), float), orientation)
    packed = normalize(data, 140, 98)
    assert np.abs(pixels(packed.data) - antialiased(whole, packed.width, packed.height)).mean() < 2
    seen = decode(data, read_header(data), 140).pixels.shape[1] / size[0]
    assert seen == pytest.approx(decoded_at, rel=0.26)  # some k/8 between the fraction and what is asked for


def test_even_stripes_become_even_gray():
    """Stripes one pixel wide; picking single pixels would give black or white."""
    stripes = np.zeros((240, 240, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = pixels(normalize(encoded(Image.fromarray(stripes), "PNG"), 60, 95).data)
    assert np.abs(shown - 127.5).max() < 2


def test_opencv_leaves_the_other_cores_to_other_processes():
    cv2.setNumThreads(2)
    normalize(normal_jpeg(), 30, 90)
    assert cv2.getNumThreads() == 1


def test_a_photo_is_never_enlarged():
    assert normalize(with_orientation(6), 61, 90)[1:] == (60, 90)
    assert normalize(encoded(scene(), "PNG"), 500, 90)[1:] == (90, 60)
