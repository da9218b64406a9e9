"""Photos as they also come: damaged, mislabelled, in other formats and orientations."""
import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Not Found</body></html>\n"
ORIENTATION, ROTATED = 0x0112, 6  # EXIF tag, and its value for "turn clockwise by 90 degrees to view"


def encode(view: NDArray[Any], kind: str, quality: int) -> bytes | None:
    """The view, BGR (H, W, 3), as the bytes of a file of this kind; None: no file at all."""
    image = Image.fromarray(view[..., ::-1])
    match kind:
        case "missing":
            return None
        case "empty":
            return b""
        case "html":
            return HTML
        case "truncated":
            whole = _pil(image, "JPEG", quality=quality)
            return whole[:len(whole) // 2]
        case "progressive":
            return _pil(image, "JPEG", quality=quality, progressive=True)
        case "cmyk":
            return _pil(image.convert("CMYK"), "JPEG", quality=quality)
        case "grey":
            return _pil(image.convert("L"), "JPEG", quality=quality)
        case "exif":
            exif = Image.Exif()
            exif[ORIENTATION] = ROTATED
            return _pil(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=quality, exif=exif)
        case "png16":
            return cv2.imencode(".png", view.astype(np.uint16) * 257)[1].tobytes()
        case "webp":
            return _pil(image, "WEBP", quality=quality)
    return cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _pil(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()
