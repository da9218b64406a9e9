"""Bring a photo into normal form, which all packed photos have: sRGB, upright, baseline JPEG with 4:2:0 chroma.

NVIDIA's hardware decoder takes only baseline JPEG, and a DALI pipeline dies on the first file that it cannot decode
(its maintainers in NVIDIA/DALI#3913), so no file that fails here may reach a shard.
"""
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import jpeglib
import numpy as np
import simplejpeg

from preprocess.images.decode import Photo, Rejected, check_size, decode, is_srgb, shrink, target_size, to_rgb
from preprocess.images.decode import check as check_decodes
from preprocess.images.end_marker import completed
from preprocess.images.formats import MAX_PIXELS
from shards.jpeg import BASELINE, SAMPLING_420, JpegHeader, read_header, without_metadata

# Progressive JPEG -> baseline with the same DCT coefficients: only the entropy coding is redone.

jpeglib.version.set("turbo210")  # as in simplejpeg; the default, libjpeg 6b, prints warnings about good files
LOCK = threading.Lock()  # jpeglib counts markers in global variables: without a lock, 8 threads made it fail


def to_baseline(data: bytes) -> bytes | None:
    """The same photo as baseline JPEG without metadata; None if jpeglib fails.

    data: a JPEG that passed strict decoding, since damage can crash jpeglib. The caller must compare the pixels. Raises
    OSError only when the temporary folder cannot be written.
    """
    with LOCK, TemporaryDirectory() as folder:
        source, target = Path(folder, "source.jpg"), Path(folder, "target.jpg")
        source.write_bytes(without_metadata(data))
        try:
            jpeg = jpeglib.read_dct(source)
            jpeg.load()
            jpeg.qt = 0  # a number: keep the tables of the source, and with them its component ids
            jpeg.write_dct(target, flags=["+OPTIMIZE_CODING"])
        except OSError as error:
            if error.errno:
                raise
            return None
        return target.read_bytes()


# What brings the pixels (H, W, C) of each orientation upright; 1, and what EXIF does not define, stays.
UPRIGHT = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
           5: lambda a: a.swapaxes(0, 1), 6: lambda a: a[::-1].swapaxes(0, 1),
           7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: a[:, ::-1].swapaxes(0, 1)}


class Packed(NamedTuple):
    """A whole JPEG in normal form and its size in pixels."""

    data: bytes
    width: int
    height: int


class Options(NamedTuple):
    """What `normalize` is told."""

    short_side: int | None
    quality: int
    check: bool
    max_pixels: int


def normalize(data: bytes, short_side: int | None, quality: int, check: bool = True,
              max_pixels: int = MAX_PIXELS) -> Packed:
    """Bring an image file into normal form, decoding it once; equal arguments give equal bytes.

    A file that already is in normal form keeps its bytes, including metadata (EXIF, XMP, an sRGB profile) that does not
    change how the photo looks. A progressive JPEG that is otherwise in normal form becomes baseline with the same
    pixels. All others are encoded once, without metadata. A JPEG that lacks only its end marker is given one.

    short_side: pixels; photos with a longer short side are scaled down to it (antialiased); None keeps all sizes.
    quality: JPEG quality (1-100) of photos that must be encoded. check: also decode files that keep their bytes.
    max_pixels: photos with more are rejected.
    Raises Rejected, and nothing else, whatever `data` is; OSError when the temporary folder cannot be written.
    """
    if not data:
        raise Rejected("empty file")
    options = Options(short_side, quality, check, max_pixels)
    try:
        return _normalized(data, options)
    except Rejected as reason:
        if "Premature end of JPEG file" in str(reason) and (whole := completed(data)):
            with suppress(Rejected):
                return _normalized(whole, options)
        raise


def _normalized(data: bytes, options: Options) -> Packed:
    header = read_header(data)
    if header is None or not _pixels_stay(header, options.short_side):
        return _encoded(decode(data, header, options.short_side, options.max_pixels), options)
    check_size(header.width, header.height, options.max_pixels)
    if not _is_baseline(header):
        return _recoded(data, header, options)
    if options.check:
        check_decodes(data)
    return Packed(data, header.width, header.height)


def _pixels_stay(header: JpegHeader, short_side: int | None) -> bool:
    """Whether the pixels are in normal form, so that at most the entropy coding must change."""
    return (header.bits == 8 and header.is_ycbcr and header.sampling == SAMPLING_420 and header.orientation == 1
            and target_size(header.width, header.height, short_side) == (header.width, header.height)
            and is_srgb(header.profile))


def _is_baseline(header: JpegHeader) -> bool:
    return header.process == BASELINE and header.interleaved and header.has_8_bit_tables


def _recoded(data: bytes, header: JpegHeader, options: Options) -> Packed:
    """Baseline with the same pixels; encoded again where that fails (rare scan scripts)."""
    photo = decode(data, header, None, options.max_pixels)
    baseline = to_baseline(data)
    if baseline is None or not _has_pixels(baseline, photo.pixels, options.max_pixels):
        return _encoded(photo, options)
    return Packed(baseline, photo.width, photo.height)


def _has_pixels(data: bytes, pixels: np.ndarray, max_pixels: int) -> bool:
    header = read_header(data)
    if header is None or not (_pixels_stay(header, None) and _is_baseline(header)):
        return False
    try:
        return np.array_equal(decode(data, header, None, max_pixels).pixels, pixels)
    except Rejected:
        return False


def _encoded(photo: Photo, options: Options) -> Packed:
    """Scale down, rotate, convert to sRGB and encode; in this order, since fewer pixels are faster."""
    size = target_size(photo.width, photo.height, options.short_side)
    pixels = to_rgb(upright(shrink(photo.pixels, *size), photo.orientation), photo.profile)
    height, width = pixels.shape[:2]
    check_size(width, height, options.max_pixels)
    return Packed(simplejpeg.encode_jpeg(pixels, options.quality, "RGB", "420"), width, height)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of uint8 pixels (H, W, C) as the photo is meant to be seen."""
    return UPRIGHT[orientation](pixels) if orientation in UPRIGHT else pixels
