"""Photos are scaled down to the mean of areas, against a float64 reference, and never up."""
import io

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.decode import decode
from preprocess.jpeg_header import read_header
from preprocess.normal_form import normalise
from preprocess.shrink import shrink, target_size
from tests.pictures import area_mean, encoded, exif_of, normal_jpeg, pixels, scene, texture, turned, with_orientation

SIDES = st.integers(1, 90)


@settings(deadline=None, max_examples=300)
@given(width=SIDES, height=SIDES, short_side=SIDES | st.none())
@example(width=3000, height=2, short_side=1)
@example(width=65500, height=3, short_side=2)
def test_target_size_caps_the_short_side_and_keeps_the_shape(width, height, short_side):
    new_width, new_height = target_size(width, height, short_side)
    assert min(new_width, new_height) == min(width, height, short_side or width)
    assert new_width <= width and new_height <= height
    scale = min(new_width, new_height) / min(width, height)
    assert max(abs(new_width - width * scale), abs(new_height - height * scale)) <= 0.5


@settings(deadline=None, max_examples=200)
@given(width=SIDES, height=SIDES, short_side=SIDES, channels=st.sampled_from([1, 3, 4]))
def test_each_pixel_is_the_mean_of_the_area_that_it_covers(width, height, short_side, channels):
    picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    size = target_size(width, height, short_side)
    assert np.abs(shrink(picture, *size) - area_mean(picture, *size)).max() <= 0.51


@pytest.mark.parametrize("form, options", [("JPEG", {"quality": 98, "subsampling": "4:2:0"}), ("PNG", {})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_shrunk_to_what_the_eye_would_see(form, options, orientation):
    stored = np.asarray(scene(120, 80))
    data = encoded(scene(120, 80), form, exif=exif_of(orientation), **options)
    upright = turned(stored, orientation).astype(float)
    width, height = (45, 30) if upright.shape[1] > upright.shape[0] else (30, 45)
    packed = normalise(data, 30, 98)
    assert (packed.width, packed.height) == (width, height)
    assert np.abs(pixels(packed.data) - area_mean(upright, width, height)).mean() < 3


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size, decoded_at", [
    ((800, 600), 1), ((799, 601), 1), ((1601, 1203), 0.5), ((3300, 2500), 0.25)])
def test_large_photos_are_decoded_at_a_fraction_and_lose_nothing(size, decoded_at, orientation):
    """Against the float64 mean over the photo decoded whole, encoding loss included."""
    data = encoded(texture(*size), quality=92, subsampling="4:2:0", exif=exif_of(orientation))
    whole = turned(np.asarray(Image.open(io.BytesIO(data)), float), orientation)
    packed = normalise(data, 140, 98)
    assert np.abs(pixels(packed.data) - area_mean(whole, packed.width, packed.height)).mean() < 2
    seen = decode(data, read_header(data), 140).pixels.shape[1] / size[0]
    assert seen == pytest.approx(decoded_at, rel=0.26)  # some k/8 between the fraction and what is asked for


def test_even_stripes_become_even_grey():
    """Stripes one pixel wide; picking single pixels would give black or white."""
    stripes = np.zeros((240, 240, 3), np.uint8)
    stripes[:, ::2] = 255
    shown = pixels(normalise(encoded(Image.fromarray(stripes), "PNG"), 60, 95).data)
    assert np.abs(shown - 127.5).max() < 2


def test_opencv_leaves_the_other_cores_to_other_processes():
    cv2.setNumThreads(2)
    normalise(normal_jpeg(), 30, 90)
    assert cv2.getNumThreads() == 1


def test_a_photo_is_never_enlarged():
    assert normalise(with_orientation(6), 61, 90)[1:] == (60, 90)
    assert normalise(encoded(scene(), "PNG"), 500, 90)[1:] == (90, 60)
