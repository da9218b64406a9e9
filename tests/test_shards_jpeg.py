"""A photo's header tells its size and whether it is baseline 4:2:0 and upright, as a whole decoder would."""
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards.jpeg import NotNormal, check_decodes, frame_size


def encoded(width: int = 40, height: int = 30, mode: str = "RGB", **options) -> bytes:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


@settings(max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["RGB", "L"]))
def test_the_size_is_the_decoders(width, height, mode):
    jpeg = encoded(width, height, mode, subsampling="4:2:0", comment=b"\xff\xc0 is no frame")
    assert frame_size(jpeg) == (width, height)
    check_decodes(jpeg)


SOUND = encoded(subsampling="4:2:0")
FORMS = {
    "is not a JPEG": b"\x89PNG",
    "is progressive, not baseline": encoded(progressive=True),
    "has chroma sampling 1x1 1x1 1x1, not 4:2:0": encoded(subsampling="4:4:4"),
    "has chroma sampling 2x1 1x1 1x1, not 4:2:0": encoded(subsampling="4:2:2"),
    "has other colors than YCbCr (its Adobe marker says so)": encoded(mode="CMYK"),
    "is stored turned (EXIF orientation 6)": encoded(exif=exif(6)),
    "is stored turned (EXIF orientation 2)": encoded(exif=exif(2)),
    "is stored turned (EXIF orientation 8)": encoded(exif=exif(8)),
    "has no frame header": SOUND[:100],
    "has 40 × 0 pixels": SOUND.replace(b"\xff\xc0\x00\x11\x08\x00\x1e", b"\xff\xc0\x00\x11\x08\x00\x00"),
    "has 3 components of 12 bits, not 1 or 3 of 8": SOUND.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
    "is extended sequential, not baseline": SOUND.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x08"),
    "is of process SOF9, not baseline": SOUND.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc9\x00\x11\x08"),
}


@pytest.mark.parametrize("reason", FORMS)
def test_other_forms_are_named(reason):
    with pytest.raises(NotNormal) as error:
        frame_size(FORMS[reason])
    assert str(error.value) == reason


def test_what_decoders_skip_is_skipped():
    """Garbage and fill bytes between segments; EXIF that is upright, undefined or damaged; harmless Adobe markers."""
    at = 2 + 2 + int.from_bytes(SOUND[4:6])
    for extra in (b"\x00\x11", b"\xff\xff", segment(0xE1, exif(1)), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
                  segment(0xE1, exif(0)), segment(0xE1, exif(9)), segment(0xE1, b"Exif\0\0garbage"),
                  segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01"), segment(0xEE, b"Adobe\0\x64\0\0\0\0")):
        jpeg = SOUND[:at] + extra + SOUND[at:]
        assert frame_size(jpeg) == Image.open(io.BytesIO(jpeg)).size == (40, 30)


def test_exif_behind_the_frame_counts_too():
    at = SOUND.index(b"\xff\xc4")
    turned = SOUND[:at] + segment(0xE1, exif(3)) + SOUND[at:]
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == 3
    with pytest.raises(NotNormal, match="EXIF orientation 3"):
        frame_size(turned)


@settings(max_examples=300)
@given(st.data())
def test_damage_anywhere_is_no_other_exception(data):
    at = data.draw(st.integers(0, len(SOUND) - 1))
    junk = data.draw(st.binary(max_size=6))
    damaged = SOUND[:at] + junk + SOUND[at + data.draw(st.integers(0, 8)):]
    for check in (frame_size, check_decodes):
        try:
            check(damaged)
        except NotNormal as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 400])
def test_a_cut_photo_does_not_decode(cut):
    with pytest.raises(NotNormal, match="cannot be decoded"):
        check_decodes(SOUND[:-cut])
