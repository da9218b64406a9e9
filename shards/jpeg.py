"""Read the headers of a JPEG, without a decoder and in microseconds.

Shards hold photos in one normal form: baseline (NVIDIA's hardware decoder takes no other), 8 bit, YCbCr with 4:2:0
chroma, upright. Adopted tars may also hold gray photos of one component. `read_header` is for packing: it gives up on
anything unusual, which a decoder then has to judge. `frame_size` is for checking tars: it names what is not in normal
form.

ITU-T T.81 (B.2: segments), JFIF 1.02, Adobe technical note 5116 (APP14), EXIF 2.32, ICC.1:2022 (B.4: profiles in JPEG).
"""
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import simplejpeg
from PIL import Image

SOI = b"\xff\xd8"
BASELINE, PROGRESSIVE, DQT, SOS = 0xC0, 0xC2, 0xDB, 0xDA
PROCESSES = {0xC1: "extended sequential", 0xC2: "progressive", 0xC3: "lossless"}
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
WITHOUT_LENGTH = {*range(0xD0, 0xDA)}  # restart markers, SOI, EOI
METADATA = {*range(0xE0, 0xF0), 0xFE}  # APPn, COM
JFIF, EXIF, PROFILE, ADOBE = (0xE0, b"JFIF\0"), (0xE1, b"Exif\0\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe")
ALL_COEFFICIENTS = b"\0\x3f\0"  # what the scan of a sequential JPEG must say
SAMPLING_420 = (0x22, 0x11, 0x11)  # of Y, Cb, Cr: horizontal << 4 | vertical

Segments = list[tuple[int, bytes]]  # marker, payload


class NotNormal(ValueError):
    """A photo that is not in normal form; the message is the short reason, as in "is progressive"."""


class JpegHeader(NamedTuple):
    """process: the frame's marker (0xC0 baseline, 0xC2 progressive). width, height: pixels, at least 1.
    sampling: horizontal << 4 | vertical, one a component. is_ycbcr: every decoder takes the components for that.
    interleaved: the first scan has all components; in a baseline frame it is then the only one.
    profile: a whole ICC profile, or None."""

    process: int
    bits: int
    width: int
    height: int
    sampling: tuple[int, ...]
    is_ycbcr: bool
    interleaved: bool
    has_8_bit_tables: bool
    orientation: int
    profile: bytes | None


class Frame(NamedTuple):
    """A frame header: bits a sample, size in pixels, then id and sampling of each component."""

    bits: int
    width: int
    height: int
    components: int
    ids: bytes
    sampling: tuple[int, ...]


def read_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG; None if anything in it is unusual."""
    if not data.startswith(SOI):
        return None
    try:
        return _header([(marker, data[start + 4:end]) for marker, start, end in _segments(data)])
    except (ValueError, KeyError, IndexError, struct.error):
        return None


def without_metadata(data: bytes) -> bytes:
    """The same JPEG without the APPn and COM segments before its first scan. data: `read_header` took it."""
    segments = list(_segments(data))
    kept = [data[start:end] for marker, start, end in segments if marker not in METADATA]
    return b"".join([SOI, *kept, data[segments[-1][2]:]])


def frame_size(jpeg: bytes) -> tuple[int, int]:
    """Width and height in pixels of a JPEG in normal form, from its header alone. Raises NotNormal for any other."""
    if not jpeg.startswith(SOI):
        raise NotNormal("is not a JPEG")
    size = None
    for marker, start, end in _segments(jpeg, skip_garbage=True):
        payload = jpeg[start + 4:end]
        if marker == EXIF[0] and payload.startswith(EXIF[1]):
            _check_upright(payload)
        elif marker == ADOBE[0] and payload.startswith(ADOBE[1]) and payload[11:12] not in (b"\x01", b""):
            raise NotNormal("has other colors than YCbCr (its Adobe marker says so)")
        elif marker in FRAMES:
            size = _normal_size(marker, payload)
    if size is None:
        raise NotNormal("has no frame header")
    return size


def check_decodes(jpeg: bytes) -> None:
    """Decode every entropy-coded byte, at the least cost. Raises NotNormal where libjpeg as much as warns."""
    try:
        simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, min_height=1, min_width=1)  # gray at 1/8 scale
    except ValueError as error:
        raise NotNormal(f"cannot be decoded ({error})") from None


def _segments(jpeg: bytes, skip_garbage: bool = False) -> Iterator[tuple[int, int, int]]:
    """Marker, first byte and end of each segment up to the first scan's header.

    skip_garbage: as decoders do, skip what stands between segments, and end with the file; else raise ValueError or
    struct.error.
    """
    at, marker = len(SOI), 0
    while marker != SOS:
        while jpeg[at:at + 2] == b"\xff\xff" or skip_garbage and jpeg[at:at + 1] not in (b"\xff", b""):
            at += 1  # fill bytes, B.1.1.2
        if skip_garbage and at + 4 > len(jpeg):
            return
        prefix, marker, length = struct.unpack_from(">BBH", jpeg, at)
        if not skip_garbage and (prefix != 0xFF or marker < 0xC0 or marker in WITHOUT_LENGTH):
            raise ValueError("not a segment")
        yield marker, at, at + 2 + length
        at += 2 + length


def _frame(payload: bytes) -> Frame:
    bits, height, width, components = struct.unpack_from(">BHHB", payload)
    parts = payload[6:6 + 3 * components]
    return Frame(bits, width, height, components, parts[::3], tuple(parts[1::3]))


# What read_header finds.

def _header(segments: Segments) -> JpegHeader:
    (process, payload), = [segment for segment in segments if segment[0] in FRAMES]
    frame = _frame(payload)
    if len(payload) != 6 + 3 * frame.components or frame.components not in (1, 3, 4) or not frame.width * frame.height:
        raise ValueError("not a frame of known size and colors")
    scan = segments[-1][1]
    if process != PROGRESSIVE and not scan.endswith(ALL_COEFFICIENTS):
        raise ValueError("a scan of some coefficients in a sequential JPEG")
    return JpegHeader(
        process, frame.bits, frame.width, frame.height, frame.sampling, _is_ycbcr(segments, frame.ids),
        interleaved=scan[0] == frame.components,
        has_8_bit_tables=all(len(tables) % 65 == 0 for marker, tables in segments if marker == DQT),
        orientation=_orientation(_named(segments, EXIF)), profile=_profile(_named(segments, PROFILE)))


def _named(segments: Segments, kind: tuple[int, bytes]) -> list[bytes]:
    return [payload[len(kind[1]):] for marker, payload in segments if marker == kind[0] and payload.startswith(kind[1])]


def _is_ycbcr(segments: Segments, ids: bytes) -> bool:
    adobe = [payload[6] for payload in _named(segments, ADOBE)]
    jfif = [payload[0] for payload in _named(segments, JFIF)]  # major version
    if not {*adobe} <= {0, 1, 2} or not {*jfif} <= {1}:
        raise ValueError("an unknown Adobe transform or JFIF version")
    plain = bool(jfif) or ids == b"\1\2\3"
    return len(ids) == 3 and (adobe == [1] or not adobe and plain)


def _orientation(blocks: list[bytes]) -> int:
    if len(blocks) > 1:
        raise ValueError("several EXIF blocks")
    return read_orientation(blocks[0]) if blocks else 1


def _profile(parts: list[bytes]) -> bytes | None:
    ordered = sorted(parts)  # by their first byte, the number; the second one is the count
    if [part[:2] for part in ordered] != [bytes((number, len(parts))) for number in range(1, len(parts) + 1)]:
        raise ValueError("parts of a profile")
    return b"".join(part[2:] for part in ordered) or None


# EXIF's orientation tag (EXIF 2.32, section 4.6.4 A and table 7).

ORIENTATION_TAG, TURNED = 0x0112, range(2, 9)
SHORT = 3
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def read_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block (without its "Exif" prefix); 1 if it has none.

    Raises ValueError, KeyError or struct.error where the block is not plain.
    """
    order = ORDERS[tiff[:4]]
    start, = struct.unpack_from(order + "I", tiff, 4)
    count, = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, at)
        if tag == ORIENTATION_TAG:
            if (kind, values) != (SHORT, 1):
                raise ValueError("orientation is not one short")
            return value
    return 1


# What frame_size refuses.

def _normal_size(marker: int, payload: bytes) -> tuple[int, int]:
    if marker != BASELINE:
        raise NotNormal(f"is {PROCESSES.get(marker, f'of process SOF{marker - BASELINE}')}, not baseline")
    if len(payload) < 6:
        raise NotNormal("has a frame header that is cut off")
    frame = _frame(payload)
    if frame.bits != 8 or frame.components not in (1, 3):
        raise NotNormal(f"has {frame.components} components of {frame.bits} bits, not 1 or 3 of 8")
    if frame.components == 3 and frame.sampling != SAMPLING_420:
        raise NotNormal(f"has chroma sampling {' '.join(f'{s >> 4}x{s & 15}' for s in frame.sampling)}, not 4:2:0")
    if not frame.width or not frame.height:
        raise NotNormal(f"has {frame.width} × {frame.height} pixels")
    return frame.width, frame.height


def _check_upright(payload: bytes) -> None:
    """Decoders take what they cannot read, and what EXIF does not define, for upright."""
    exif, orientation = Image.Exif(), None
    with warnings.catch_warnings(action="ignore"), suppress(Exception):  # Pillow raises nearly any type on damaged EXIF
        exif.load(payload)
        orientation = exif.get(ORIENTATION_TAG)
    if orientation in TURNED:
        raise NotNormal(f"is stored turned (EXIF orientation {orientation})")
