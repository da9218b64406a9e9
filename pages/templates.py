"""Fills in the templates of this folder, and turns photos into data URIs. The same input gives the same bytes."""
import base64
import io
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

QUALITY = 82  # of JPEG


def fill(template: str, /, **values: Any) -> str:
    """The page of `template`.html.j2. Values are escaped; one that the template names and nobody gave raises."""
    return ENVIRONMENT.get_template(f"{template}.html.j2").render(values)


def thumbnail(photo: bytes, side: int) -> str:
    """A JPEG of any size, shrunk to fit side × side pixels, as a data URI."""
    with JpegImageFile(io.BytesIO(photo)) as image:  # Image.open has a limit, and packing another
        image.draft("RGB", (side, side))  # decodes a large JPEG at a fraction of its size
        small = image.convert("RGB")
    small.thumbnail((side, side))
    return _jpeg_uri(small)


def pixels_uri(pixels: NDArray[np.uint8]) -> str:
    """uint8 (H, W, 3) RGB as a data URI."""
    return _jpeg_uri(Image.fromarray(pixels))


def data_uri(kind: str, content: bytes) -> str:
    """Args: kind: MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _jpeg_uri(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=QUALITY)
    return data_uri("image/jpeg", encoded.getvalue())


def _score(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


ENVIRONMENT = jinja2.Environment(loader=jinja2.PackageLoader("pages", "."), autoescape=True,
                                 undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters.update(thumbnail=thumbnail, pixels_uri=pixels_uri, score=_score, signed=_signed)
