"""An image file's bytes -> 8-bit pixels, with what is needed to turn and colour them right.

JPEG goes through libjpeg-turbo (simplejpeg), whose warnings count as errors here: of 300 single-bit flips in photos it
names 78, Pillow 4. Other formats, and JPEGs whose header is odd, go through Pillow.
"""
import io
import warnings
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from preprocess.normal_form.jpeg_header import SOI, JpegHeader
from preprocess.normal_form.rejected import Rejected
from preprocess.normal_form.shrink import target_size

# Not Pillow's whole list: its EPS reader, for one, starts Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 89_478_485  # Pillow's limit: 256 MiB of RGB
MAX_SIDE = 65500  # pixels, libjpeg's JPEG_MAX_DIMENSION
ORIENTATION = 0x0112  # EXIF tag
# libjpeg-turbo 3.1, jerror.h and turbojpeg.c. It reports its first complaint only.
HEADER_COMPLAINTS = ("subsampling level", "bad ICC marker", "Unknown Adobe color transform", "unknown JFIF revision",
                     "Invalid SOS parameters for sequential JPEG")
SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
# libjpeg scales by k/8 while it decodes, which aliases a little. Over float64 area means of demo photos (695×589 to 72
# pixels) whole decoding is off by 0.2 grey levels (59 dB), this by 0.7 (44 dB) with 4 times the final size, by 1.2
# (40 dB) with 3 times. It halves the time for photos of 2,300 pixels and more at short side 288.
DECODED_PER_FINAL = 4


class Photo(NamedTuple):
    """pixels: uint8 (H, W, 1 grey | 3 RGB | 4 CMYK, 255 full ink), as stored. width, height: of the photo in pixels;
    the pixels may be decoded smaller. orientation: EXIF's. profile: ICC."""

    pixels: np.ndarray
    width: int
    height: int
    orientation: int
    profile: bytes | None


class OddHeader(Rejected):
    """A JPEG of which libjpeg says no more than that its header is odd; Pillow decodes it, with its weaker check."""


def decode(data: bytes, header: JpegHeader | None, short_side: int | None) -> Photo:
    """Decode an image, at no less than DECODED_PER_FINAL times the size that `short_side` (pixels) will ask for.

    header: `read_header` of data. Raises Rejected for damage, bombs, float pixels and what is no image.
    """
    if header is not None:
        with suppress(OddHeader):
            return _decode_jpeg(data, header, short_side)
    return _decode_with_pillow(data)


def check(data: bytes) -> None:
    """Entropy-decode every byte of a JPEG at the least cost: grey, 1/8 of the size. Raises Rejected for damage.

    It finds what decoding the whole picture finds (tests/test_decode_check.py). Bytes behind the end of the image are
    fine. "Extraneous bytes before marker" is damage too: of 3,000 photos with a bit flipped, 16 bytes zeroed or a few
    bytes lost, it was the only message for 128, and these were off by 40 grey levels on average.
    """
    _libjpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8)


def check_size(width: int, height: int) -> None:
    """Raise Rejected for more pixels than are safe to decode, or a side that JPEG cannot hold."""
    _check_pixels(width, height)
    if max(width, height) > MAX_SIDE:
        raise Rejected(f"a side longer than {MAX_SIDE} pixels")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Rejected(f"more than {MAX_PIXELS} pixels")


def _libjpeg(data: bytes, space: str, **scale: int) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, space, **scale)
    except ValueError as error:
        kind = OddHeader if any(words in str(error) for words in HEADER_COMPLAINTS) else Rejected
        raise kind(f"truncated or corrupt: {error}") from None


def _decode_jpeg(data: bytes, header: JpegHeader, short_side: int | None) -> Photo:
    check_size(header.width, header.height)
    if header.bits != 8:
        raise Rejected(f"JPEG of {header.bits} bits")
    width, height = target_size(header.width, header.height, short_side)
    space = SPACES[len(header.sampling)]
    pixels = _libjpeg(data, space, min_width=DECODED_PER_FINAL * width, min_height=DECODED_PER_FINAL * height,
                      min_factor=2)
    # Adobe stores inks inverted, everybody followed, and decoders invert whatever the markers say.
    return Photo(~pixels if space == "CMYK" else pixels, header.width, header.height, header.orientation,
                 header.profile)


def _decode_with_pillow(data: bytes) -> Photo:
    """Pillow's warnings are of metadata or of the size, which is checked here."""
    with warnings.catch_warnings(action="ignore"):
        return _pillow_photo(data)


def _pillow_photo(data: bytes) -> Photo:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(*image.size)
        if data.startswith(SOI):
            with suppress(OddHeader):
                check(data)
        image.load()
        pixels = np.asarray(_plain(image))
    except UnidentifiedImageError:
        raise Rejected("not an image") from None
    except Image.DecompressionBombError:
        raise Rejected(f"more than {MAX_PIXELS} pixels") from None
    except Rejected:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise nearly any type
        raise Rejected(f"truncated or corrupt: {error}") from None
    return Photo(pixels.reshape(image.height, image.width, -1), image.width, image.height, _orientation(image),
                 image.info.get("icc_profile"))


def _plain(image: Image.Image) -> Image.Image:
    """Modes L, RGB and CMYK: 16-bit grey keeps its high byte, transparency goes on white. Rejects float pixels."""
    if image.mode == "F":
        raise Rejected("floating-point pixels")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF is parsed only here, and damaged too; the pixels are whole and stay as they are
        return 1
