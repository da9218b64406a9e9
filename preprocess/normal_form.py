"""The one form that every packed photo has: RGB, upright, baseline JPEG with 4:2:0 chroma.

NVIDIA's hardware decoder takes baseline JPEG only, and a DALI pipeline dies on the first file that it cannot
decode (its maintainers in NVIDIA/DALI#3913), so what fails here must not reach a shard.
"""
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

# Not Pillow's whole list: its EPS reader, for one, starts Ghostscript on the file.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
ORIENTATION = 0x0112  # EXIF tag
MAX_SIDE = 65500  # pixels, libjpeg's JPEG_MAX_DIMENSION

# EXIF 2.32, table 7: what undoes each orientation.
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
           4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270,
           7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}


class Rejected(Exception):
    """A file that cannot become a sample; the message is the short reason."""


class Packed(NamedTuple):
    """A whole JPEG in normal form and its size in pixels."""

    data: bytes
    width: int
    height: int


def normalise(data: bytes, short_side: int | None, quality: int) -> Packed:
    """Bring an image file into normal form; a file that already has it keeps its bytes.

    short_side: pixels; a longer one is scaled down to it (antialiased), a shorter one stays; None keeps all
    sizes. quality: JPEG quality (1-100) of what must be encoded. Raises Rejected, and nothing else, whatever
    `data` is.
    """
    if not data:
        raise Rejected("empty file")
    image, orientation = _decode(data)
    shortest = min(image.size)
    target = min(shortest, short_side or shortest)
    if target == shortest and orientation == 1 and _is_normal(image, data):
        return Packed(data, *image.size)
    rgb = _to_rgb(image)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    if target < shortest:
        rgb = _shrink(rgb, target)
    return Packed(_encode(rgb, quality), *rgb.size)


def _decode(data: bytes) -> tuple[Image.Image, int | None]:
    """The decoded image and its EXIF orientation; None: Pillow finds the metadata odd, strip it."""
    with warnings.catch_warnings(record=True) as odd:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            image.load()
        except UnidentifiedImageError:
            raise Rejected("not an image") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise Rejected(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
        except Exception as error:  # damaged files make Pillow's decoders raise nearly any type
            raise Rejected(f"truncated or corrupt: {error}") from None
        orientation = _orientation(image)
    return image, None if odd else orientation


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # EXIF is parsed only here, and damaged too; the pixels are whole and stay as they are
        return None


def _is_normal(image: Image.Image, data: bytes) -> bool:
    """Whether a decoded upright file is baseline JPEG, 8 bit, YCbCr, 4:2:0."""
    return (image.format == "JPEG" and image.mode == "RGB" and image.info.get("adobe_transform", 1) == 1
            and _frame_header(data) == (0xC0, 8, [0x22, 0x11, 0x11]))


def _frame_header(data: bytes) -> tuple[int, int, list[int]]:
    """Marker, bits a sample, sampling factors (horizontal << 4 | vertical) of a JPEG: ITU-T T.81, B.2.2."""
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF or data[at + 1] == 0xFF:  # garbage that decoders skip, or fill bytes
            at += 1
        elif 0xC0 <= data[at + 1] <= 0xCF and data[at + 1] not in (0xC4, 0xC8, 0xCC):
            return data[at + 1], data[at + 4], list(data[at + 11:at + 11 + 3 * data[at + 9]:3])
        else:
            at += 2 + int.from_bytes(data[at + 2:at + 4])
    return 0, 0, []


def _to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit grey keeps its high byte, transparency goes on white. Rejects float pixels."""
    if image.mode == "F":
        raise Rejected("floating-point pixels")
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _shrink(image: Image.Image, short_side: int) -> Image.Image:
    scale = short_side / min(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)  # Pillow widens the filter: antialiased


def _encode(image: Image.Image, quality: int) -> bytes:
    if max(image.size) > MAX_SIDE:
        raise Rejected(f"a side longer than {MAX_SIDE} pixels")
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling="4:2:0", comment=b"")
    return out.getvalue()
