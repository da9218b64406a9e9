"""A JPEG's header is read as decoders read it; what is odd in any way is left to a decoder."""
import io
import struct
from contextlib import suppress

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from preprocess.images.decode import Rejected
from preprocess.images.normalize import normalize
from shards.jpeg import read_header, read_orientation, without_metadata
from tests.icc_profiles import ADOBE_RGB
from tests.pictures import encoded, exif_of, normal_jpeg, pixels, scene, strict, with_orientation

JPEG = normal_jpeg()
JFIF = JPEG[2:20]


def with_segment(marker: int, content: bytes, jpeg: bytes = JPEG) -> bytes:
    """The segment behind the first one, JFIF's."""
    return jpeg[:20] + bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content + jpeg[20:]


@pytest.mark.parametrize("mode, options, process, sampling, is_ycbcr", [
    ("RGB", {"subsampling": "4:2:0"}, 0xC0, (0x22, 0x11, 0x11), True),
    ("RGB", {"subsampling": "4:2:2"}, 0xC0, (0x21, 0x11, 0x11), True),
    ("RGB", {"subsampling": "4:2:0", "progressive": True}, 0xC2, (0x22, 0x11, 0x11), True),
    ("RGB", {"keep_rgb": True}, 0xC0, (0x11, 0x11, 0x11), False),
    ("L", {}, 0xC0, (0x11,), False),
    ("CMYK", {}, 0xC0, (0x11, 0x11, 0x11, 0x11), False)])
def test_header_says_what_the_encoder_was_told(mode, options, process, sampling, is_ycbcr):
    header = read_header(encoded(scene().convert(mode), **options))
    assert header[:6] == (process, 8, 90, 60, sampling, is_ycbcr)
    assert header.interleaved and header.has_8_bit_tables
    assert header.orientation == 1 and header.profile is None


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_both_byte_orders(orientation, order):
    exif = exif_of(orientation)
    exif.endian = order
    data = normal_jpeg(exif=exif)
    assert (b"Exif\0\0II" in data) == (order == "<")
    assert read_header(data).orientation == orientation


def test_profile_and_exif_are_found_among_other_segments():
    header = read_header(normal_jpeg(icc_profile=ADOBE_RGB, exif=exif_of(3), comment=b"words", xmp=b"<x/>"))
    assert header.profile == ADOBE_RGB and header.orientation == 3


@pytest.mark.parametrize("data, is_ycbcr", [
    (with_segment(0xEE, b"Adobe\0d\0\0\0\0\1"), True),
    (with_segment(0xEE, b"Adobe\0d\0\0\0\0\0"), False),
    (JPEG.replace(JFIF, b""), True),
    (JPEG.replace(JFIF, b"").replace(b"\1\x22\0\2\x11\1\3\x11\1", b"\0\x22\0\1\x11\1\2\x11\1")
     .replace(b"\3\1\0\2\x11\3\x11\0\x3f", b"\3\0\0\1\x11\2\x11\0\x3f"), False),
], ids=["adobe 1", "adobe 0", "no marker, ids 1 2 3", "no marker, ids 0 1 2"])
def test_only_components_that_every_decoder_takes_for_ycbcr_count(data, is_ycbcr):
    assert read_header(data).is_ycbcr == is_ycbcr
    assert (normalize(data, None, 90, check=False).data == data) == is_ycbcr


def test_fill_bytes_between_segments_are_fine():
    data = JPEG[:20] + b"\xff\xff\xff" + JPEG[20:]
    assert strict(data) is None and normalize(data, None, 90) == (data, 90, 60)


FRAME = JPEG.index(b"\xff\xc0")
SCAN = JPEG.index(b"\xff\xda")
TWO_COMPONENTS = b"\xff\xc0\0\x0e" + JPEG[FRAME + 4:FRAME + 9] + b"\2" + JPEG[FRAME + 10:FRAME + 16]
ODD = {
    "no jpeg": b"\x89PNG",
    "words between segments": JPEG[:20] + b"words" + JPEG[20:],
    "cut in the header": JPEG[:FRAME + 6],
    "no scan": JPEG[:SCAN],
    "two frames": JPEG[:FRAME] + JPEG[FRAME:SCAN] + JPEG[FRAME:],
    "restart marker": JPEG[:20] + b"\xff\xd0\0\2" + JPEG[20:],
    "no marker": JPEG[:20] + b"\0\xfe\0\4ab" + JPEG[20:],
    "no height": JPEG[:FRAME + 5] + b"\0\0" + JPEG[FRAME + 7:],
    "no width": JPEG[:FRAME + 7] + b"\0\0" + JPEG[FRAME + 9:],
    "two components": JPEG.replace(JPEG[FRAME:FRAME + 19], TWO_COMPONENTS),
    "four components in the room of three": JPEG[:FRAME + 9] + b"\4" + JPEG[FRAME + 10:],
    "exif of no order": with_orientation(1).replace(b"Exif\0\0MM", b"Exif\0\0XX"),
    "exif twice": with_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0", with_orientation(1)),
    "exif cut": with_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\5"),
    "half a profile": normal_jpeg(icc_profile=ADOBE_RGB).replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2"),
    "jfif 2": JPEG.replace(b"JFIF\0\1", b"JFIF\0\2"),
    "adobe 7": with_segment(0xEE, b"Adobe\0d\0\0\0\0\7").replace(JFIF, b""),
    "adobe cut": with_segment(0xEE, b"Adobe"),
    "scan of some coefficients": JPEG.replace(b"\x11\0\x3f\0", b"\x11\0\x3e\0"),
}


def test_profile_in_parts_is_put_in_order():
    long = ADOBE_RGB + bytes(range(256)) * 300
    first = with_segment(0xE2, b"ICC_PROFILE\0\1\2" + long[:65000])
    for data in (normal_jpeg(icc_profile=long), with_segment(0xE2, b"ICC_PROFILE\0\2\2" + long[65000:], first)):
        assert read_header(data).profile == long


@pytest.mark.parametrize("kind", ODD)
def test_odd_headers_are_left_to_a_decoder(kind):
    assert ODD[kind] != JPEG and read_header(ODD[kind]) is None
    with suppress(Rejected):
        assert normalize(ODD[kind], None, 90).data != ODD[kind]


@pytest.mark.parametrize("kind", ["exif of no order", "exif twice", "exif cut", "half a profile", "jfif 2", "adobe 7",
                                  "scan of some coefficients"])
def test_photos_with_whole_pixels_are_saved_from_odd_headers(kind):
    """libjpeg warns of most of these; nothing is lost but metadata."""
    packed = normalize(ODD[kind], None, 95)
    assert packed.data == normalize(ODD[kind], None, 95, check=False).data != ODD[kind]
    assert np.abs(pixels(packed.data) - np.asarray(scene(), float)).mean() < 4


def test_16_bit_tables_are_no_baseline():
    """T.81, B.2.4.1: libjpeg decodes such a frame all the same, but hardware need not."""
    at = JPEG.index(b"\xff\xdb")
    table = JPEG[at + 5:at + 69]
    wide = b"\x10" + b"".join(bytes((0, value)) for value in table)
    data = JPEG[:at] + b"\xff\xdb" + struct.pack(">H", 2 + len(wide)) + wide + JPEG[at + 69:]
    assert strict(data) is None and not read_header(data).has_8_bit_tables
    assert normalize(data, None, 95).data != data


def test_metadata_is_cut_out_and_the_picture_stays():
    data = normal_jpeg(icc_profile=ADOBE_RGB, exif=exif_of(3), comment=b"words")
    bare = without_metadata(data)
    assert not any(words in bare for words in (b"JFIF", b"Exif", b"ICC_PROFILE", b"words"))
    assert np.array_equal(Image.open(io.BytesIO(bare)), Image.open(io.BytesIO(data)))


@settings(max_examples=500)
@given(base=st.sampled_from([JPEG, with_orientation(6), normal_jpeg(icc_profile=ADOBE_RGB, comment=b"words")]),
       edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
       end=st.floats(0, 1))
def test_any_bytes_have_a_header_or_none_and_libjpeg_sees_the_same_size(base, edits, end):
    data = bytearray(base[:max(2, int(len(base) * min(1.0, 2 * end)))])
    for where, value in edits:
        data[int(where * min(700, len(data)))] = value
    header = read_header(bytes(data))
    if header is not None and header.width * header.height < 1e6 and strict(bytes(data)) is None:
        assert simplejpeg.decode_jpeg(bytes(data), "GRAY").shape == (header.height, header.width, 1)


@settings(max_examples=300)
@given(start=st.sampled_from([b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"]), block=st.binary(max_size=60))
def test_any_exif_block_has_an_orientation_or_a_plain_error(start, block):
    try:
        assert 0 <= read_orientation(start + block) <= 65535
    except (ValueError, KeyError, struct.error):
        pass
