"""What a JPEG's header says: its size, and whether it is the one form that shards hold.

The form: baseline (NVIDIA's hardware decoder takes no other), 8 bit, YCbCr with 4:2:0 chroma, upright. Segments are
those of ITU-T T.81, B.1.1 and B.2.2.
"""
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import simplejpeg
from PIL import Image

ORIENTATION, TURNED = 0x0112, range(2, 9)  # EXIF 2.32, section 4.6.4 A
SAMPLING_420 = [0x22, 0x11, 0x11]  # of Y, Cb, Cr: horizontal << 4 | vertical
PROCESSES = {0xC1: "extended sequential", 0xC2: "progressive", 0xC3: "lossless"}
APP1, APP14, START_OF_SCAN = 0xE1, 0xEE, 0xDA


class NotNormal(ValueError):
    """A photo that is not in the form; the message is the short reason, as in "is progressive"."""


class Segment(NamedTuple):
    """A marker's second byte, and what stands behind its length."""

    marker: int
    content: bytes


def frame_size(jpeg: bytes) -> tuple[int, int]:
    """Width and height in pixels of a JPEG in the form, from its header alone. Raises NotNormal for any other."""
    if jpeg[:2] != b"\xff\xd8":
        raise NotNormal("is not a JPEG")
    size = None
    for marker, content in _segments(jpeg):
        if marker == APP1 and content.startswith(b"Exif\0\0"):
            _check_upright(content)
        elif marker == APP14 and content.startswith(b"Adobe") and content[11:12] not in (b"\x01", b""):
            raise NotNormal("has other colors than YCbCr (its Adobe marker says so)")
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = _size_of_frame(marker, content)
    if size is None:
        raise NotNormal("has no frame header")
    return size


def check_decodes(jpeg: bytes) -> None:
    """Decode every entropy-coded byte, at the least cost. Raises NotNormal where libjpeg as much as warns."""
    try:
        simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, min_height=1, min_width=1)  # gray at 1/8 scale
    except ValueError as error:
        raise NotNormal(f"cannot be decoded ({error})") from None


def _segments(jpeg: bytes) -> Iterator[Segment]:
    """The segments in front of the first scan; decoders skip what is garbage between them, and so does this."""
    at = 2
    while at + 4 <= len(jpeg):
        if jpeg[at] != 0xFF or jpeg[at + 1] == 0xFF:  # garbage, or a fill byte
            at += 1
            continue
        if jpeg[at + 1] == START_OF_SCAN:
            return
        end = at + 2 + int.from_bytes(jpeg[at + 2:at + 4])
        yield Segment(jpeg[at + 1], jpeg[at + 4:end])
        at = end


def _size_of_frame(marker: int, content: bytes) -> tuple[int, int]:
    if marker != 0xC0:
        raise NotNormal(f"is {PROCESSES.get(marker, f'of process SOF{marker - 0xC0}')}, not baseline")
    bits, height, width, components = (int.from_bytes(content[a:b]) for a, b in ((0, 1), (1, 3), (3, 5), (5, 6)))
    sampling = list(content[7:6 + 3 * components:3])
    if bits != 8 or components != 3:
        raise NotNormal(f"has {components} components of {bits} bits, not 3 of 8")
    if sampling != SAMPLING_420:
        raise NotNormal(f"has chroma sampling {' '.join(f'{s >> 4}x{s & 15}' for s in sampling)}, not 4:2:0")
    if not width or not height:
        raise NotNormal(f"has {width} × {height} pixels")
    return width, height


def _check_upright(content: bytes) -> None:
    """Decoders take what they cannot read, and what EXIF does not define, for upright."""
    exif, orientation = Image.Exif(), None
    with warnings.catch_warnings(action="ignore"), suppress(Exception):  # Pillow raises nearly any type on damaged EXIF
        exif.load(content)
        orientation = exif.get(ORIENTATION)
    if orientation in TURNED:
        raise NotNormal(f"is stored turned (EXIF orientation {orientation})")
