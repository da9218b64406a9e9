"""8-bit pixels of any colour space -> sRGB."""
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MODES = {1: "L", 3: "RGB", 4: "CMYK"}
SRGB = ImageCms.createProfile("sRGB")
# Grey levels, at the colour that differs most: 1 for profiles of sRGB with rounded numbers or short tables (measured),
# 9 for gamma 2.2 with sRGB's primaries, 105 for Display P3.
SAME = 2


def to_rgb(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """uint8 (H, W, 1 grey | 3 RGB | 4 CMYK) -> sRGB uint8 (H, W, 3), contiguous.

    profile: the ICC profile that the pixels are in. Without one, grey and RGB are taken for sRGB and CMYK is
    converted by the plain formula; a profile that is broken or of another colour space is left out, as browsers do.
    """
    mode = MODES[pixels.shape[2]]
    transform = _transform(profile, mode) if profile else None
    if mode == "RGB" and transform is None:
        return np.ascontiguousarray(pixels)
    image = Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())
    return np.asarray(image.convert("RGB") if transform is None else ImageCms.applyTransform(image, transform))


def is_srgb(profile: bytes | None) -> bool:
    """Whether RGB pixels with this profile are sRGB as they stand."""
    return profile is None or _transform(profile, "RGB") is None


@lru_cache(maxsize=32)  # a collection has few profiles, and building a transform takes a millisecond or more
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB; None: the profile cannot be used, or changes nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, SRGB, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError):
        return None
    return None if mode == "RGB" and _changes_little(transform) else transform


def _changes_little(transform: ImageCms.ImageCmsTransform) -> bool:
    """By effect, not by name: many profiles describe sRGB, under many names."""
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    return int(np.abs(changed.astype(int) - colours).max()) <= SAME
