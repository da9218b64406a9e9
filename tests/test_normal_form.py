"""Every file becomes a baseline 4:2:0 RGB JPEG of the claimed size, or is rejected with a reason."""
import hashlib
import resource
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from preprocess.images.decode import Rejected
from preprocess.images.formats import FORMATS, PHOTO_ENDINGS
from preprocess.images.normalize import Packed, normalize
from tests.conftest import ROOT
from tests.pictures import encoded, exif_of, normal_jpeg, pixels, scene, texture, turned, with_orientation


def difference(packed: Packed, expected: Image.Image) -> float:
    """Mean absolute difference in gray levels; also checks the claims that hold for every packed photo."""
    shown = pixels(packed.data)
    assert shown.shape == (packed.height, packed.width, 3) and (packed.width, packed.height) == expected.size
    return float(np.abs(shown - np.asarray(expected.convert("RGB"), float)).mean())


@pytest.mark.parametrize("data", [
    normal_jpeg(), normal_jpeg(comment=b"a word"), normal_jpeg(restart_marker_blocks=2), normal_jpeg(optimize=True),
    with_orientation(1), normal_jpeg(xmp=b"<x:xmpmeta/>"),
], ids=["plain", "comment", "restart markers", "optimized", "exif", "xmp"])
def test_normal_jpeg_keeps_its_bytes(data):
    assert normalize(data, None, 90) == (data, 90, 60)
    assert normalize(data, 60, 90) == normalize(data, 61, 90) == (data, 90, 60)
    assert normalize(data, None, 50, check=False) == (data, 90, 60)


@pytest.mark.parametrize("data", [
    normal_jpeg(quality=95, subsampling="4:4:4"),
    normal_jpeg(quality=95, subsampling="4:2:2"),
    normal_jpeg(quality=95, subsampling="4:4:4", progressive=True),
    encoded(scene(), quality=95, keep_rgb=True),
    encoded(scene(), "PNG"),
    encoded(scene(), "WEBP", quality=95),
    encoded(scene(), "BMP"),
    encoded(scene(), "TIFF"),
    encoded(scene().convert("YCbCr"), "TIFF"),
    encoded(scene().quantize(256), "GIF"),
    encoded(scene().quantize(256), "PNG"),
    encoded(scene(), "AVIF"),
    encoded(scene(), "JPEG2000"),
    encoded(scene(), "JPEG2000", no_jp2=True),
    encoded(scene(), "ICO", sizes=[(9, 6), (90, 60)]),
    encoded(scene(), "PPM"),
    encoded(scene(), "TGA"),
    encoded(scene(), "TGA", compression="tga_rle")[:-26],
], ids=["444", "422", "progressive 444", "rgb-jpeg", "png", "webp", "bmp", "tiff", "ycbcr-tiff", "gif", "palette",
        "avif", "jp2", "j2k", "ico", "ppm", "tga", "tga of version 1"])
def test_other_forms_are_encoded_once(data):
    packed = normalize(data, None, 90)
    assert packed.data != data
    assert difference(packed, scene()) < 6
    assert normalize(packed.data, None, 90) == packed


def test_endings_of_photos_are_those_of_the_formats():
    Image.init()
    named = Image.registered_extensions()
    assert {named[ending] for ending in PHOTO_ENDINGS - {".jif"}} == {*FORMATS, "MPO"}  # a JPEG with another behind it


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpegs_of_other_color_spaces_become_rgb(mode):
    packed = normalize(encoded(scene().convert(mode), quality=95), None, 95)
    assert difference(packed, scene().convert(mode).convert("RGB")) < 4


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied_and_stripped(orientation, form):
    options = {"JPEG": {"quality": 95, "subsampling": "4:2:0"}, "WEBP": {"quality": 95}}.get(form, {})
    packed = normalize(encoded(scene(), form, exif=exif_of(orientation), **options), None, 90)
    upright = Image.fromarray(np.ascontiguousarray(turned(np.asarray(scene()), orientation)))
    assert difference(packed, upright) < 6 and b"Exif" not in packed.data


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_undefined_orientation_leaves_the_pixels_and_is_stripped(value):
    packed = normalize(with_orientation(value), None, 90)
    assert difference(packed, scene()) < 6 and b"Exif" not in packed.data


def test_odd_metadata_is_stripped():
    """Pillow warns of this EXIF block: its orientation claims more bytes than there are."""
    data = bytearray(with_orientation(6))
    at = data.index(b"\x01\x12\x00\x03\x00\x00\x00\x01")
    data[at + 4] = 1
    packed = normalize(bytes(data), None, 90)
    assert b"Exif" not in packed.data and difference(packed, scene()) < 6


def test_unreadable_exif_leaves_the_pixels_as_they_are():
    """Pillow parses this EXIF block only when asked for it, and then raises ValueError (no hex digits)."""
    text = PngInfo()
    text.add_text("Raw profile type exif", "exif\n\n9\nno hex")
    assert difference(normalize(encoded(scene(), "PNG", pnginfo=text), None, 90), scene()) < 6


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_16_bit_gray_is_scaled_not_clipped(form):
    ramp = np.linspace(0, 65535, 90 * 60).reshape(60, 90).astype(np.uint16)
    packed = normalize(encoded(Image.fromarray(ramp), form), None, 95)
    assert difference(packed, Image.fromarray((ramp >> 8).astype(np.uint8))) < 2


def test_one_bit_pixels_become_black_and_white():
    image = Image.new("1", (90, 60))
    image.paste(1, (0, 0, 48, 60))
    assert difference(normalize(encoded(image, "PNG"), None, 95), image) < 2


@pytest.mark.parametrize("mode, form, options", [
    ("RGBA", "PNG", {}), ("RGBA", "WEBP", {"lossless": True}), ("RGBA", "TIFF", {}), ("LA", "PNG", {}),
    ("RGBA", "AVIF", {}), ("RGBA", "JPEG2000", {}), ("RGBA", "TGA", {}), ("RGBA", "ICO", {"sizes": [(40, 40)]})])
def test_transparency_goes_on_white(mode, form, options):
    image = Image.new("RGBA", (40, 40), (0, 0, 200, 0))
    image.paste((200, 200, 200, 255), (0, 0, 16, 40))
    expected = Image.new("RGB", (40, 40), "white")
    expected.paste((200, 200, 200), (0, 0, 16, 40))
    assert difference(normalize(encoded(image.convert(mode), form, **options), None, 95), expected) < 6


def test_transparent_palette_color_becomes_white():
    image = Image.new("P", (40, 40), 1)
    image.putpalette([10, 10, 10, 0, 0, 250])
    image.paste(0, (0, 0, 16, 40))
    expected = Image.new("RGB", (40, 40), "white")
    expected.paste((10, 10, 10), (0, 0, 16, 40))
    assert difference(normalize(encoded(image, "PNG", transparency=1), None, 95), expected) < 6


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_of_many_frames_is_the_photo(form):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    assert difference(normalize(data, None, 95), frames[0]) < 6


def png_of_size(width: int, height: int, bits: int = 8) -> bytes:
    """A PNG whose header claims a size, with no pixels to match."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def jpeg_of_size(width: int, height: int, jpeg: bytes = normal_jpeg()) -> bytes:
    """A JPEG whose frame header claims a size."""
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4:]


def claiming(form: str, old: bytes, new: bytes) -> bytes:
    """An image of 90 × 60 pixels with one field of its header changed."""
    data = encoded(scene(), form)
    assert old in data
    return data.replace(old, new)


def icon_of(picture: bytes) -> bytes:
    """An icon that claims 32 × 32 pixels."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 32, 32, 0, 0, 1, 32, len(picture), 22) + picture


ODD_JPEG = with_orientation(1).replace(b"Exif\0\0MM", b"Exif\0\0XX")
TWELVE_BITS = normal_jpeg().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")
REJECTS = {
    "empty": (b"", "empty file"),
    "html": (b"<!DOCTYPE html><html>404</html>", "not an image"),
    "header": (normal_jpeg()[:20], "not an image"),
    "half": (normal_jpeg()[:len(normal_jpeg()) // 2], "truncated or corrupt: "),
    "png": (encoded(scene(), "PNG")[:-300], "truncated or corrupt: "),
    "preview": (encoded(scene(), "TIFF", tiffinfo={254: 1}), "is a camera's raw file"),
    "other raw file": (b"FUJIFILMCCD-RAW 0201", "is a camera's raw file"),
    "half avif": (encoded(scene(), "AVIF")[:250], "truncated or corrupt: "),
    "heic": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(99), "is HEIC: convert it"),
    "jpeg xl": (b"\xff\x0a" + bytes(99), "is JPEG XL: convert it"),
    "svg": (b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg xmlns='http://w3.org/2000/svg'/>", "is SVG: convert it"),
    "html with svg": (b"<!DOCTYPE html><html><svg/></html>", "not an image"),
    "pdf": (b"%PDF-1.7\n", "is PDF: convert it"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "png bomb": (png_of_size(20000, 20000), "more than 89478485 pixels"),
    "large png": (png_of_size(10000, 10000), "more than 89478485 pixels"),
    "jpeg bomb": (jpeg_of_size(65500, 65500), "more than 89478485 pixels"),
    "large jpeg": (jpeg_of_size(9500, 9500), "more than 89478485 pixels"),
    "progressive bomb": (jpeg_of_size(65500, 65500, normal_jpeg(progressive=True)), "more than 89478485 pixels"),
    "odd jpeg bomb": (jpeg_of_size(9500, 9500, ODD_JPEG), "more than 89478485 pixels"),
    "turned bomb": (jpeg_of_size(9500, 9500, with_orientation(6)), "more than 89478485 pixels"),
    "ppm bomb": (b"P6 20000 20000 255\n", "more than 89478485 pixels"),
    "tga bomb": (bytes((0, 0, 2, *bytes(9), 255, 255, 255, 255, 24, 0)) + bytes(99), "more than 89478485 pixels"),
    "avif bomb": (claiming("AVIF", b"ispe\0\0\0\0" + struct.pack(">II", 90, 60), b"ispe\0\0\0\0" + struct.pack(
        ">II", 16000, 16000)), "more than 89478485 pixels"),
    "jp2 bomb": (claiming("JPEG2000", struct.pack(">II", 60, 90), struct.pack(">II", 20000, 20000)),
                 "more than 89478485 pixels"),
    "icon bomb": (icon_of(png_of_size(20000, 20000)), "more than 89478485 pixels"),
    "no size": (png_of_size(0, 10), ""),
    "jpeg without height": (jpeg_of_size(90, 0), ""),
    "long png": (encoded(Image.new("RGB", (66000, 1)), "PNG"), "a side longer than 65500 pixels"),
    "long jpeg": (jpeg_of_size(65501, 9), "a side longer than 65500 pixels"),
    "float": (encoded(Image.new("F", (9, 9)), "TIFF"), "floating-point pixels"),
    "12 bits": (TWELVE_BITS, "JPEG of 12 bits"),
}


@pytest.mark.parametrize("kind", REJECTS)
@pytest.mark.parametrize("short_side, check", [(None, True), (30, True), (30, False)])
def test_reject_reasons(kind, short_side, check):
    data, reason = REJECTS[kind]
    with pytest.raises(Rejected) as rejected:
        normalize(data, short_side, 90, check)
    assert str(rejected.value).startswith(reason) and "\n" not in str(rejected.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "AVIF"])
def test_max_pixels_is_the_largest_size_that_is_packed(form):
    data = encoded(scene(), form)
    assert normalize(data, None, 90, max_pixels=90 * 60)[1:] == (90, 60)
    with pytest.raises(Rejected, match="^more than 5399 pixels$"):
        normalize(data, None, 90, max_pixels=90 * 60 - 1)


@pytest.mark.parametrize("data", [png_of_size(19000, 9500), icon_of(png_of_size(19000, 9500))], ids=["png", "icon"])
def test_max_pixels_may_be_twice_what_pillow_takes_by_itself(data):
    with pytest.raises(Rejected, match="^truncated or corrupt"):
        normalize(data, None, 90, max_pixels=19000 * 9500)


def test_a_long_photo_may_be_shrunk_into_what_jpeg_can_hold():
    assert normalize(encoded(Image.new("RGB", (66000, 20)), "PNG"), 10, 90)[1:] == (33000, 10)


def check_total(data: bytes, short_side: int | None) -> None:
    """Whatever `data` is: a photo in normal form of the claimed size and a fixed point, or Rejected."""
    try:
        packed = normalize(data, short_side, 90)
    except Rejected as reason:
        assert 0 < len(str(reason)) < 200 and " at 0x" not in str(reason)
        return
    assert pixels(packed.data).shape == (packed.height, packed.width, 3)
    assert short_side is None or min(packed.width, packed.height) <= short_side
    assert normalize(packed.data, short_side, 90) == packed


@settings(max_examples=100)
@given(st.binary(max_size=400), st.sampled_from([
    b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"\0\0\0\x20ftypavif", b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51", b"P6 ", b"P3 9 9 255 ", b"\0\0\1\0\1\0"]))
def test_random_bytes_never_raise_anything_else(data, start):
    check_total(start + data, None)


@settings(max_examples=300)
@given(kind=st.tuples(st.integers(0, 9), st.integers(0, 1), st.sampled_from([1, 2, 3, 9, 10, 11])),
       colors=st.binary(min_size=5, max_size=5), place=st.binary(min_size=4, max_size=4), width=st.integers(0, 300),
       height=st.integers(0, 300), depth=st.sampled_from([1, 8, 15, 16, 24, 32]), flags=st.integers(0, 255),
       rest=st.binary(max_size=2000))
def test_any_tga_header_never_raises_anything_else(kind, colors, place, width, height, depth, flags, rest):
    check_total(struct.pack("<3B5s4sHHBB", *kind, colors, place, width, height, depth, flags) + rest, None)


BASES = [normal_jpeg(), encoded(scene(), "PNG"), encoded(scene(), "WEBP"), with_orientation(6),
         normal_jpeg(progressive=True), encoded(scene(), "TIFF"), encoded(scene().quantize(64), "GIF"),
         encoded(scene().convert("CMYK")), encoded(scene().convert("LAB"), "TIFF"), encoded(scene(), "BMP"),
         encoded(scene().convert("LA"), "PNG"), normal_jpeg(subsampling="4:4:4"), encoded(scene(), "AVIF"),
         encoded(scene(), "JPEG2000"), encoded(scene(), "ICO"), encoded(scene(), "PPM"), encoded(scene(), "TGA")]


@settings(max_examples=1000)
@given(base=st.sampled_from(BASES), end=st.floats(0, 1), short_side=st.sampled_from([None, 20]),
       edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8))
def test_mutated_images_never_raise_anything_else(base, end, short_side, edits):
    """Flipped bytes (half of them within the headers) and cut ends."""
    data = bytearray(base[:max(1, int(len(base) * (1 if end > 0.5 else end * 2)))])
    for number, (where, value) in enumerate(edits):
        reach = len(data) if number % 2 else min(len(data), 700)
        data[int(where * reach)] = value
    check_total(bytes(data), short_side)


@settings(max_examples=200)
@given(width=st.integers(1, 70), height=st.integers(1, 70), short_side=st.none() | st.integers(1, 70),
       orientation=st.integers(1, 8), quality=st.integers(1, 100),
       mode=st.sampled_from(["RGB", "L", "CMYK"]), sampling=st.sampled_from(["4:2:0", "4:2:2", "4:4:4"]),
       progressive=st.booleans())
def test_any_jpeg_comes_out_upright_capped_and_stays_so(width, height, short_side, orientation, quality, mode,
                                                        sampling, progressive):
    data = encoded(texture(width, height).convert(mode), subsampling=sampling, progressive=progressive,
                   exif=exif_of(orientation))
    packed = normalize(data, short_side, quality)
    assert pixels(packed.data).shape == (packed.height, packed.width, 3)
    assert min(packed.width, packed.height) == min(width, height, short_side or width)
    portrait = width < height if orientation < 5 else width > height
    assert packed.width <= packed.height if portrait or width == height else packed.width >= packed.height
    assert normalize(packed.data, short_side, quality) == packed


DIGEST = """
import hashlib, sys
from preprocess.images.normalize import normalize
sizes = iter(sys.argv[1:])
for size in sizes:
    print(hashlib.sha256(normalize(sys.stdin.buffer.read(int(size)), 40, 88).data).hexdigest())
"""


def test_another_process_makes_the_same_bytes():
    """With OpenCV's fast code paths off, too, as on an older processor."""
    digests = [hashlib.sha256(normalize(data, 40, 88).data).hexdigest() for data in BASES[:8]]
    sizes = [str(len(data)) for data in BASES[:8]]
    for environment in ({}, {"OPENCV_CPU_DISABLE": "AVX2,AVX,FP16"}):
        done = subprocess.run([sys.executable, "-c", DIGEST, *sizes], input=b"".join(BASES[:8]), cwd=ROOT, check=True,
                              capture_output=True, env={"PYTHONPATH": str(ROOT), **environment})
        assert done.stdout.decode().split() == digests


def test_memory_stays_flat():
    """40 photos of 1.4 MB of pixels in each of six forms, shrunk or rejected: a leak of one would take 58 MB."""
    photo = texture(800, 600)
    whole = encoded(photo, quality=80, subsampling="4:2:0")
    files = [whole, whole[:-900], encoded(photo, quality=80, subsampling="4:4:4"), encoded(photo.convert("CMYK")),
             encoded(photo, "WEBP", method=0), encoded(photo, quality=80, subsampling="4:4:4")[:-900]]

    def pack_all(times: int) -> int:
        for data in files * times:
            try:
                normalize(data, 288, 90)
            except Rejected:
                pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert -pack_all(5) + pack_all(40) < 40_000  # KB
