"""Every color space becomes sRGB; known colors are those of the specifications."""
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from preprocess.images.decode import is_srgb, to_rgb
from preprocess.images.normalize import normalize
from tests.icc_profiles import (
    ADOBE_RGB,
    COARSE_SRGB,
    DISPLAY_P3,
    GAMMA_22,
    NEARLY_SRGB,
    SRGB,
    cmyk_profile,
    gray_profile,
    lab_to_srgb,
)
from tests.pictures import encoded, normal_jpeg, pixels, scene

LINEAR = b"curv" + bytes(8)
PILLOW_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CORNERS = np.random.default_rng(3).integers([60, 118, 118], [250, 138, 138], (2, 2, 2, 2, 3), np.uint8)
CORNERS[0, 0, 0, 0] = (255, 128, 128)  # paper: rendering makes it white
CORNERS[1, 1, 1] = CORNERS[..., 1, :] = (0, 128, 128)  # black, the point that perceptual rendering keeps


def flat(color: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (32, 32), color)


def mean_color(data: bytes) -> np.ndarray:
    return pixels(normalize(data, None, 95).data).mean((0, 1))


@pytest.mark.parametrize("profile, stored, shown", [
    (ADOBE_RGB, (219, 0, 0), (255, 0, 0)), (ADOBE_RGB, (144, 255, 60), (0, 255, 0)),
    (ADOBE_RGB, (0, 0, 250), (0, 0, 255)),
    (DISPLAY_P3, (234, 51, 35), (255, 0, 0)), (DISPLAY_P3, (117, 251, 76), (0, 255, 0)),
    (DISPLAY_P3, (0, 0, 245), (0, 0, 255)), (DISPLAY_P3, (128, 128, 128), (128, 128, 128)),
    (SRGB, (10, 200, 90), (10, 200, 90))])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profile_is_converted_to_srgb(profile, stored, shown, form):
    """The same color by two specifications, rounded there to whole levels."""
    options = {"JPEG": {"quality": 97, "subsampling": "4:2:0"}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    data = encoded(flat(stored), form, icc_profile=profile, **options.get(form, {}))
    assert np.abs(mean_color(data) - shown).max() < (7 if form == "AVIF" else 6)  # AVIF rounds twice
    assert b"ICC_PROFILE" not in normalize(data, 31, 95).data


@pytest.mark.parametrize("profile", [SRGB, COARSE_SRGB, PILLOW_SRGB, b"", b"no profile", ADOBE_RGB[:200],
                                     cmyk_profile(CORNERS), gray_profile(LINEAR)],
                         ids=["srgb", "short table", "pillow", "empty", "words", "cut", "cmyk", "gray"])
def test_photo_whose_profile_says_nothing_new_keeps_its_bytes(profile):
    """sRGB under any name; broken profiles, and those of another color space, are left out."""
    data = normal_jpeg(icc_profile=profile)
    assert (b"ICC_PROFILE" in data) == bool(profile)
    assert normalize(data, None, 90).data == data


def test_profile_of_jpeg_2000_is_converted_to_srgb():
    """Pillow writes none: a box of ICC.1 (ISO 15444-1, I.5.3.3) takes the place of its box, which names sRGB."""
    plain = encoded(flat((144, 255, 60)), "JPEG2000")
    box = struct.pack(">I", len(ADOBE_RGB) + 11) + b"colr\2\0\0" + ADOBE_RGB
    at, header = plain.index(b"colr") - 4, plain.index(b"jp2h") - 4
    size, = struct.unpack_from(">I", plain, header)
    data = (plain[:header] + struct.pack(">I", size - 15 + len(box)) + plain[header + 4:at] + box + plain[at + 15:])
    assert np.abs(mean_color(plain) - (144, 255, 60)).max() < 6
    assert np.abs(mean_color(data) - (0, 255, 0)).max() < 6


def test_profile_over_many_segments_is_put_together():
    long = ADOBE_RGB + bytes(70_000)
    data = encoded(flat((144, 255, 60)), quality=97, subsampling="4:2:0", icc_profile=long)
    assert data.count(b"ICC_PROFILE\0") == 2
    assert np.abs(mean_color(data) - (0, 255, 0)).max() < 6


def test_incomplete_profile_is_left_out():
    data = normal_jpeg(icc_profile=ADOBE_RGB)
    data = data.replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2")
    packed = normalize(data, None, 95)
    assert b"ICC_PROFILE" not in packed.data and np.abs(pixels(packed.data) - np.asarray(scene(), float)).mean() < 4


@pytest.mark.parametrize("level", [0, 60, 128, 255])
def test_gray_profile_is_applied_to_gray(level):
    """A linear gray profile: sRGB's curve turns a linear level into a much lighter one."""
    linear = level / 255
    shown = 255 * (12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055)
    data = encoded(flat((level,), "L"), icc_profile=gray_profile(LINEAR))
    assert np.abs(mean_color(data) - shown).max() < 3
    assert np.abs(mean_color(encoded(flat((level,), "L"), icc_profile=ADOBE_RGB)) - level).max() < 2


@pytest.mark.parametrize("inks", [(0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (255, 255, 0, 0),
                                  (0, 0, 0, 255)])
@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_profile_is_applied(inks, form):
    lab8 = CORNERS[tuple(ink // 255 for ink in inks)].astype(float)
    shown = lab_to_srgb(np.array([lab8[0] / 2.55, lab8[1] - 128, lab8[2] - 128]))
    data = encoded(flat(inks, "CMYK"), form, icc_profile=cmyk_profile(CORNERS))
    assert np.abs(mean_color(data) - shown).max() < 5


@pytest.mark.parametrize("inks, shown", [
    ((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 0, 0), (255, 0, 255)),
    ((0, 0, 255, 0), (255, 255, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 128), (127, 127, 127))])
@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_not_inverted(inks, shown, form):
    assert np.abs(mean_color(encoded(flat(inks, "CMYK"), form)) - shown).max() < 4


def test_srgb_is_told_by_effect():
    assert all(map(is_srgb, (None, SRGB, COARSE_SRGB, PILLOW_SRGB, b"broken")))
    assert not any(map(is_srgb, (DISPLAY_P3, ADOBE_RGB, NEARLY_SRGB)))


@settings(max_examples=300)
@given(base=st.sampled_from([ADOBE_RGB, DISPLAY_P3, gray_profile(GAMMA_22), cmyk_profile(CORNERS), PILLOW_SRGB]),
       edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
       channels=st.sampled_from([1, 3, 4]))
def test_any_profile_is_used_or_left_out(base, edits, channels):
    damaged = bytearray(base)
    for where, value in edits:
        damaged[int(where * len(damaged))] = value
    stored = np.asarray(scene().convert({1: "L", 3: "RGB", 4: "CMYK"}[channels])).reshape(60, 90, channels)
    shown = to_rgb(stored, bytes(damaged))
    assert shown.shape == (60, 90, 3) and shown.dtype == np.uint8 and shown.flags.c_contiguous


def test_png_with_a_broken_profile_is_still_a_photo():
    data = encoded(scene(), "PNG", icc_profile=b"nonsense")
    assert np.abs(pixels(normalize(data, None, 95).data) - np.asarray(Image.open(io.BytesIO(data)), float)).mean() < 4
