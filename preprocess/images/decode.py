"""An image file's bytes -> 8-bit pixels, with size, orientation and color profile; conversion to sRGB; scaling down.

JPEG goes through libjpeg-turbo (simplejpeg), whose warnings count as errors here: of 300 single-bit flips in photos it
detects 78, Pillow 4. Other formats, and JPEGs with an unusual header, go through Pillow.
"""
import io
import math
import warnings
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from preprocess.images.formats import FORMATS, MAX_PIXELS, why_unread
from shards.jpeg import ORIENTATION_TAG, SOI, JpegHeader


class Rejected(Exception):
    """A file that cannot be packed; the message is a short reason."""


# 8-bit pixels of any color space -> sRGB.

MODES = {1: "L", 3: "RGB", 4: "CMYK"}
SRGB = ImageCms.createProfile("sRGB")
# Profiles that change no color by more gray levels than this count as sRGB. Measured: 1 for profiles of sRGB with
# rounded numbers or short tables, 9 for gamma 2.2 with sRGB's primaries, 105 for Display P3.
SAME = 2


def to_rgb(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """uint8 (H, W, 1 gray | 3 RGB | 4 CMYK) -> sRGB uint8 (H, W, 3), contiguous.

    profile: the pixels' ICC profile. Without one, gray and RGB are taken for sRGB and CMYK is converted by the plain
    formula; a profile that is broken or of another color space is ignored, as browsers do.
    """
    mode = MODES[pixels.shape[2]]
    transform = _transform(profile, mode) if profile else None
    if mode == "RGB" and transform is None:
        return np.ascontiguousarray(pixels)
    image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    return np.asarray(image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform))


def is_srgb(profile: bytes | None) -> bool:
    """Whether RGB pixels with this profile are sRGB already."""
    return profile is None or _transform(profile, "RGB") is None


@lru_cache(maxsize=32)  # data sets have few profiles, and building a transform takes a millisecond or more
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform to sRGB; None: the profile cannot be used, or changes nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, SRGB, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError):
        return None
    return None if mode == "RGB" and _changes_little(transform) else transform


def _changes_little(transform: ImageCms.ImageCmsTransform) -> bool:
    """Judged by its effect, since profiles of sRGB have many names."""
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(colors), transform))
    return int(np.abs(changed.astype(int) - colors).max()) <= SAME


# Scaling down to a short side: a Gaussian blur removes what would alias, then linear interpolation takes the samples.
#
# Both together have the variance of Pillow's HAMMING filter, s²/9 pixels² where one new pixel replaces s old ones;
# linear interpolation contributes 1/6 pixel² (mean over all phases). On photos of 800×600 the result is within 40 to
# 54 dB of HAMMING in float64 for s from 1.02 to 7.9, and as close to LANCZOS (0.5 dB less to 1.2 dB more) as the
# mean of areas. OpenCV's INTER_AREA takes 2.8 times as long at s = 2, 5 times at 1.2. Blur and linear interpolation
# give equal bytes on all processors, OpenCV's cubic interpolation does not (Intel's IPP differs by one in places).

FILTER_VARIANCE = 1 / 9  # times s²
LINEAR_VARIANCE = 1 / 6  # pixels²


def target_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height in pixels, scaled down so that the shorter is at most `short_side`; never scaled up."""
    scale = min(1.0, (short_side or width) / min(width, height)) if short_side else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def blur_sigma(scale: float) -> float:
    """Standard deviation in pixels of the blur where one new pixel replaces `scale` old ones; 0: no blur."""
    return math.sqrt(max(0.0, FILTER_VARIANCE * scale ** 2 - LINEAR_VARIANCE))


def blur_reach(sigma: float) -> int:
    """Radius of the blur in pixels: weights below 1/256 of the center's are 0 in OpenCV's 8 bits."""
    return math.ceil(sigma * math.sqrt(2 * math.log(256))) - 1


def shrink(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale uint8 pixels (H, W, C) down to (height, width, C), of nearly the same shape."""
    if (height, width) == pixels.shape[:2]:
        return pixels
    cv2.setNumThreads(1)  # packing has a process for each core
    sigma = blur_sigma(max(pixels.shape[:2]) / max(width, height))
    if sigma:
        taps = 2 * blur_reach(sigma) + 1
        pixels = cv2.GaussianBlur(pixels, (taps, taps), sigma)
    return cv2.resize(pixels, (width, height)).reshape(height, width, -1)


MAX_SIDE = 65500  # pixels, libjpeg's JPEG_MAX_DIMENSION
# Warnings of libjpeg-turbo 3.1 (jerror.h, turbojpeg.c) about the header only; it reports the first warning only.
HEADER_COMPLAINTS = ("subsampling level", "bad ICC marker", "Unknown Adobe color transform", "unknown JFIF revision",
                     "Invalid SOS parameters for sequential JPEG")
SPACES = {1: "GRAY", 3: "RGB", 4: "CMYK"}
# libjpeg can scale by k/8 while decoding, which aliases a little. Compared with float64 area means of demo photos
# (695×589 to 72 pixels) full decoding is off by 0.2 gray levels (59 dB), scaled decoding by 0.7 (44 dB) at 4 times the
# final size, by 1.2 (40 dB) at 3 times. It halves the time for photos of 2,300 pixels and more at short side 288.
DECODED_PER_FINAL = 4


class Photo(NamedTuple):
    """pixels: uint8 (H, W, 1 gray | 3 RGB | 4 CMYK, 255 full ink), not rotated, perhaps smaller than the photo. width,
    height: of the photo, in pixels. orientation: EXIF's. profile: ICC."""

    pixels: np.ndarray
    width: int
    height: int
    orientation: int
    profile: bytes | None


class OddHeader(Rejected):
    """A JPEG about which libjpeg warns only that its header is unusual; Pillow decodes it, with a weaker check."""


def decode(data: bytes, header: JpegHeader | None, short_side: int | None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Decode an image at DECODED_PER_FINAL times the size for `short_side` (pixels) or more.

    header: `read_header` of data. Raises Rejected for damage, more than max_pixels, float pixels and what is no image.
    """
    if header is not None:
        with suppress(OddHeader):
            return _decode_jpeg(data, header, short_side, max_pixels)
    return _decode_with_pillow(data, max_pixels)


def check(data: bytes) -> None:
    """Entropy-decode every byte of a JPEG as cheaply as possible: gray, 1/8 of the size. Raises Rejected for damage.

    It finds all damage that full decoding finds (tests/test_decode_check.py). Bytes after the end of the image are
    allowed. "Extraneous bytes before marker" counts as damage: of 3,000 photos with a bit flipped, 16 bytes zeroed or a
    few bytes lost, it was the only warning for 128, and these were off by 40 gray levels on average.
    """
    _libjpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise Rejected for more than max_pixels, or a side too long for JPEG."""
    _check_pixels(width, height, max_pixels)
    if max(width, height) > MAX_SIDE:
        raise Rejected(f"a side longer than {MAX_SIDE} pixels")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise Rejected(f"more than {max_pixels} pixels")


def _libjpeg(data: bytes, space: str, **scale: int) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, space, **scale)
    except ValueError as error:
        kind = OddHeader if any(words in str(error) for words in HEADER_COMPLAINTS) else Rejected
        raise kind(f"truncated or corrupt: {error}") from None


def _decode_jpeg(data: bytes, header: JpegHeader, short_side: int | None, max_pixels: int) -> Photo:
    check_size(header.width, header.height, max_pixels)
    if header.bits != 8:
        raise Rejected(f"JPEG of {header.bits} bits")
    width, height = target_size(header.width, header.height, short_side)
    space = SPACES[len(header.sampling)]
    pixels = _libjpeg(data, space, min_width=DECODED_PER_FINAL * width, min_height=DECODED_PER_FINAL * height,
                      min_factor=2)
    # Adobe stores inverted inks, everybody followed, and decoders invert whatever the markers say.
    return Photo(~pixels if space == "CMYK" else pixels, header.width, header.height, header.orientation,
                 header.profile)


def _decode_with_pillow(data: bytes, max_pixels: int) -> Photo:
    """Without Pillow's warnings: they are about metadata, or the size, which is checked here."""
    # Pillow has one limit for all threads, and raises at twice that.
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)
    with warnings.catch_warnings(action="ignore"):
        return _pillow_photo(data, max_pixels)


def _pillow_photo(data: bytes, max_pixels: int) -> Photo:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(*image.size, max_pixels)
        if _is_preview(image):
            raise Rejected("is a camera's raw file: convert it to JPEG")
        if data.startswith(SOI):
            with suppress(OddHeader):
                check(data)
        image.load()
        _check_pixels(*image.size, max_pixels)  # an icon may be larger than its header says
        pixels = np.asarray(_plain(image))
    except UnidentifiedImageError:
        raise Rejected(why_unread(data)) from None
    except Image.DecompressionBombError:
        raise Rejected(f"more than {max_pixels} pixels") from None
    except Rejected:
        raise
    except Exception as error:  # damaged files make Pillow's decoders raise nearly any type
        raise Rejected(f"truncated or corrupt: {error}") from None
    return Photo(pixels.reshape(image.height, image.width, -1), image.width, image.height, _orientation(image),
                 image.info.get("icc_profile") or _jp2_profile(data, image))


def _is_preview(image: Image.Image) -> bool:
    """Whether it is the small first picture of a raw file that is built like TIFF (DNG, NEF, ARW)."""
    return isinstance(image, TiffImageFile) and bool(image.tag_v2.get(ExifTags.Base.NewSubfileType, 0) & 1)


def _jp2_profile(data: bytes, image: Image.Image) -> bytes | None:
    """The ICC profile of a JPEG 2000 file (ISO 15444-1, I.5.3.3), which Pillow does not read."""
    if image.format != "JPEG2000" or (box := data.find(b"colr\2", 0, data.find(b"jp2c"))) < 0:
        return None
    return data[box + 7:box - 4 + int.from_bytes(data[box - 4:box])]


def _plain(image: Image.Image) -> Image.Image:
    """Convert to L, RGB or CMYK: 16-bit gray keeps its high byte, transparency becomes white. Rejects float pixels."""
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
        return image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # EXIF is damaged; the pixels are whole and stay as they are
        return 1
