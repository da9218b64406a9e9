"""Image files as they come: mostly plain JPEGs, some damaged, some of another kind than their name says."""
import io
from collections.abc import Callable

import cv2
import numpy as np
from cv2.typing import MatLike
from PIL import Image

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
ORIENTATION = 0x0112  # EXIF tag; 6: turn a quarter clockwise to see it upright


def encode(view: MatLike, quality: int, oddity: str = "") -> bytes:
    """The bytes of an image file; view: BGR uint8 (H, W, 3), quality: 1-100 of what is lossy, oddity: see ODDITIES."""
    return ODDITIES[oddity](view, quality) if oddity else _opencv(".jpg", view, cv2.IMWRITE_JPEG_QUALITY, quality)


def _opencv(extension: str, view: MatLike, *parameters: int) -> bytes:
    done, data = cv2.imencode(extension, view, parameters)
    assert done
    return data.tobytes()


def _pillow(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def _upright(view: MatLike) -> Image.Image:
    return Image.fromarray(cv2.cvtColor(view, cv2.COLOR_BGR2RGB))


def _truncated(view: MatLike, quality: int) -> bytes:
    whole = encode(view, quality)
    return whole[:len(whole) * 3 // 5]


def _turned(view: MatLike, quality: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return _pillow(_upright(view).transpose(Image.Transpose.ROTATE_90), quality=quality, exif=exif)


def _png16(view: MatLike, quality: int) -> bytes:
    grey = cv2.cvtColor(view, cv2.COLOR_BGR2GRAY).astype(np.uint16)
    return _opencv(".png", grey * 257)  # 255 -> 65535


# What real data contains, by name.
ODDITIES: dict[str, Callable[[MatLike, int], bytes]] = {
    "truncated": _truncated,
    "empty": lambda view, quality: b"",
    "html": lambda view, quality: HTML,
    "progressive": lambda view, quality: _pillow(_upright(view), quality=quality, progressive=True),
    "cmyk": lambda view, quality: _pillow(_upright(view).convert("CMYK"), quality=quality),
    "grey": lambda view, quality: _pillow(_upright(view).convert("L"), quality=quality),
    "exif_rotated": _turned,
    "png16": _png16,
    "webp": lambda view, quality: _opencv(".webp", view, cv2.IMWRITE_WEBP_QUALITY, quality),
}
MISSING = "missing"  # in the CSV, but not on disk
