"""Made-up pictures for the tests of the normal form, and what these tests look at in a JPEG."""
import io

import numpy as np
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile


def scene(width: int = 90, height: int = 60) -> Image.Image:
    """A color gradient with a little noise: a known, asymmetric picture that JPEG keeps well."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(0).integers(0, 8, (height, width, 3))
    pixels = np.stack([x * 200 / width, y * 200 / height, 100 + 0 * x], axis=2) + noise
    return Image.fromarray(pixels.astype(np.uint8))


def texture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blobs of color with strong noise, so that its JPEG has many bytes of all kinds of codes."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(blobs) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def normal_jpeg(width: int = 90, height: int = 60, **options) -> bytes:
    return encoded(scene(width, height), **{"quality": 90, "subsampling": "4:2:0", **options})


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    return exif


def with_orientation(value: int, width: int = 90, height: int = 60) -> bytes:
    return normal_jpeg(width, height, quality=95, exif=exif_of(value))


def turned(stored: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture by EXIF's own words: where stored row 0 and column 0 belong."""
    return {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
            6: np.rot90(stored, -1), 7: np.rot90(stored, 2).swapaxes(0, 1), 8: np.rot90(stored)}[orientation]


def pixels(jpeg: bytes) -> np.ndarray:
    """Float RGB (H, W, 3) of a JPEG in normal form; asserts, with Pillow's eyes, that it is in that form."""
    image = JpegImageFile(io.BytesIO(jpeg))
    assert image.format == "JPEG" and image.mode == "RGB" and image.bits == 8
    assert not {"progressive", "progression"} & {*image.info} and image.getexif().get(0x0112, 1) == 1
    assert [component[1:3] for component in image.layer] == [(2, 2), (1, 1), (1, 1)]
    return np.asarray(image, float)


def strict(data: bytes, space: str = "RGB", **scale: int) -> str | None:
    """libjpeg's first complaint when it decodes with simplejpeg; None: not one."""
    try:
        simplejpeg.decode_jpeg(data, space, **scale)
    except ValueError as error:
        return str(error)
    return None


def antialiased(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Float reference: picture (H, W, C) through Pillow's HAMMING filter."""
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(picture, 2, 0)]
    return np.stack([np.asarray(plane.resize((width, height), Image.Resampling.HAMMING)) for plane in planes], 2)
