"""Every file becomes a baseline 4:2:0 RGB JPEG of the claimed size, or is rejected with a reason."""
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo

from preprocess.normal_form import Packed, Rejected, normalise


def scene(width: int = 90, height: int = 60) -> Image.Image:
    """A colour gradient with a little noise: a known, asymmetric picture that JPEG keeps well."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 8, (height, width, 3))
    pixels = np.stack([x * 200 / width, y * 200 / height, 100 + 0 * x], axis=2) + noise
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def normal_jpeg(width: int = 90, height: int = 60) -> bytes:
    return encoded(scene(width, height), quality=90, subsampling="4:2:0")


def difference(packed: Packed, expected: Image.Image) -> float:
    """Mean absolute difference in grey levels; also checks the claims that hold for every packed photo."""
    image = JpegImageFile(io.BytesIO(packed.data))
    assert image.format == "JPEG" and image.mode == "RGB" and "progressive" not in image.info
    assert image.size == (packed.width, packed.height) == expected.size
    assert [component[1:3] for component in image.layer] == [(2, 2), (1, 1), (1, 1)]
    assert image.getexif().get(0x0112, 1) == 1
    return float(np.abs(np.asarray(image, float) - np.asarray(expected.convert("RGB"), float)).mean())


def with_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(scene(), quality=95, subsampling="4:2:0", exif=exif)


def test_normal_jpeg_keeps_its_bytes():
    data = normal_jpeg()
    assert normalise(data, None, 90) == (data, 90, 60)
    assert normalise(data, 60, 90).data == data
    assert normalise(with_orientation(1), None, 90).data == with_orientation(1)


@pytest.mark.parametrize("data", [
    encoded(scene(), quality=95, subsampling="4:2:0", progressive=True),
    encoded(scene(), quality=95, subsampling="4:4:4"),
    encoded(scene(), quality=95, subsampling="4:2:2"),
    encoded(scene(), quality=95, keep_rgb=True),
    encoded(scene(), "PNG"),
    encoded(scene(), "WEBP", quality=95),
    encoded(scene(), "BMP"),
    encoded(scene(), "TIFF"),
    encoded(scene().quantize(256), "GIF"),
    encoded(scene().quantize(256), "PNG"),
], ids=["progressive", "444", "422", "rgb-jpeg", "png", "webp", "bmp", "tiff", "gif", "palette"])
def test_other_forms_are_encoded_once(data):
    packed = normalise(data, None, 90)
    assert packed.data != data
    assert difference(packed, scene()) < 6
    assert normalise(packed.data, None, 90) == packed


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_colour_spaces_become_rgb(mode):
    packed = normalise(encoded(scene().convert(mode), quality=95), None, 95)
    assert difference(packed, scene().convert(mode).convert("RGB")) < 4


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(orientation):
    """Against the EXIF standard: where stored row 0 and column 0 belong in the upright picture."""
    stored = np.asarray(scene())
    upright = {2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
               6: np.rot90(stored, -1), 7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored)}
    packed = normalise(with_orientation(orientation), None, 90)
    assert difference(packed, Image.fromarray(np.ascontiguousarray(upright[orientation]))) < 6


def test_odd_metadata_is_stripped():
    """Pillow warns of this EXIF block: its one entry claims more bytes than there are."""
    data = bytearray(with_orientation(6))
    at = data.index(b"\x01\x12\x00\x03\x00\x00\x00\x01")
    data[at + 4] = 1
    packed = normalise(bytes(data), None, 90)
    assert b"Exif" not in packed.data and difference(packed, scene()) < 6


def test_unreadable_exif_leaves_the_pixels_as_they_are():
    """Pillow parses this EXIF block only when asked for it, and then raises ValueError (no hex digits)."""
    text = PngInfo()
    text.add_text("Raw profile type exif", "exif\n\n9\nno hex")
    assert difference(normalise(encoded(scene(), "PNG", pnginfo=text), None, 90), scene()) < 6


def test_16_bit_grey_is_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 90 * 60).reshape(60, 90).astype(np.uint16)
    packed = normalise(encoded(Image.fromarray(ramp), "PNG"), None, 95)
    assert difference(packed, Image.fromarray((ramp >> 8).astype(np.uint8))) < 2


@pytest.mark.parametrize("form, options", [("PNG", {}), ("WEBP", {"lossless": True})])
def test_transparency_goes_on_white(form, options):
    image = Image.new("RGBA", (40, 40), (0, 0, 200, 0))
    image.paste((200, 0, 0, 255), (0, 0, 16, 40))
    expected = Image.new("RGB", (40, 40), "white")
    expected.paste((200, 0, 0), (0, 0, 16, 40))
    assert difference(normalise(encoded(image, form, **options), None, 95), expected) < 6


@pytest.mark.parametrize("size, short_side, expected", [
    ((90, 60), 30, (45, 30)), ((60, 90), 30, (30, 45)), ((90, 60), 61, (90, 60)), ((90, 60), 60, (90, 60)),
    ((3000, 2), 1, (1500, 1)), ((61, 61), 1, (1, 1))])
def test_short_side_is_capped_and_never_upscaled(size, short_side, expected):
    packed = normalise(encoded(scene(*size), "PNG"), short_side, 90)
    assert (packed.width, packed.height) == expected
    assert Image.open(io.BytesIO(packed.data)).size == expected


def test_shrinking_is_antialiased():
    """Stripes one pixel wide become even grey; picking single pixels would give black or white."""
    stripes = np.zeros((240, 240, 3), np.uint8)
    stripes[:, ::2] = 255
    packed = normalise(encoded(Image.fromarray(stripes), "PNG"), 50, 95)
    pixels = np.asarray(Image.open(io.BytesIO(packed.data)), float)
    assert abs(pixels.mean() - 127.5) < 3 and pixels.std() < 12


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, with no pixels to match."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("data, reason", [
    (b"", "empty file"),
    (b"<!DOCTYPE html><html>404</html>", "not an image"),
    (normal_jpeg()[:20], "not an image"),
    (normal_jpeg()[:len(normal_jpeg()) // 2], "truncated or corrupt: "),
    (encoded(scene(), "PNG")[:-300], "truncated or corrupt: "),
    (encoded(scene(), "PPM"), "not an image"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    (png_of_size(20000, 20000), "more than 89478485 pixels"),
    (png_of_size(10000, 10000), "more than 89478485 pixels"),
    (png_of_size(0, 10), ""),
    (encoded(Image.new("RGB", (66000, 1)), "PNG"), "a side longer than 65500 pixels"),
    (encoded(Image.new("F", (9, 9)), "TIFF"), "floating-point pixels"),
], ids=["empty", "html", "header", "half", "png", "ppm", "eps", "bomb", "large", "zero", "long", "float"])
def test_reject_reasons(data, reason):
    with pytest.raises(Rejected) as rejected:
        normalise(data, None, 90)
    assert str(rejected.value).startswith(reason) and "\n" not in str(rejected.value)


def check_total(data: bytes, short_side: int | None) -> None:
    """Whatever `data` is: a decodable photo of the claimed size, or Rejected."""
    try:
        packed = normalise(data, short_side, 90)
    except Rejected:
        return
    image = Image.open(io.BytesIO(packed.data))
    image.load()
    assert image.size == (packed.width, packed.height)
    assert short_side is None or min(image.size) <= short_side


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=400))
def test_random_bytes_never_raise_anything_else(data):
    check_total(data, None)


BASES = [normal_jpeg(), encoded(scene(), "PNG"), encoded(scene(), "WEBP"), with_orientation(6),
         encoded(scene(), progressive=True), encoded(scene(), "TIFF"), encoded(scene().quantize(64), "GIF")]


@settings(deadline=None, max_examples=1000)
@given(base=st.sampled_from(BASES), end=st.floats(0, 1), short_side=st.sampled_from([None, 20]),
       edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8))
def test_mutated_images_never_raise_anything_else(base, end, short_side, edits):
    """Flipped bytes (half of them within the headers) and cut ends."""
    data = bytearray(base[:max(1, int(len(base) * (1 if end > 0.5 else end * 2)))])
    for number, (where, value) in enumerate(edits):
        reach = len(data) if number % 2 else min(len(data), 700)
        data[int(where * reach)] = value
    check_total(bytes(data), short_side)
