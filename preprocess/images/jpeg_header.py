"""What a JPEG says of itself before its first scan, read in microseconds and without a decoder.

ITU-T T.81 (B.2: segments), JFIF 1.02, Adobe technical note 5116 (APP14), EXIF 2.32, ICC.1:2022 (B.4: profiles in JPEG).
"""
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

# EXIF's orientation tag: read it, undo it (EXIF 2.32, section 4.6.4 A and table 7).

TAG = 0x0112
SHORT = 3
ORDERS = {b"II*\0": "<", b"MM\0*": ">"}

# What brings the pixels (H, W, C) of each orientation upright; 1, and what EXIF does not define, stays.
UPRIGHT = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
           5: lambda a: a.swapaxes(0, 1), 6: lambda a: a[::-1].swapaxes(0, 1),
           7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: a[:, ::-1].swapaxes(0, 1)}


def read_orientation(tiff: bytes) -> int:
    """The orientation in an EXIF block (without its "Exif" prefix); 1 if it says none.

    Raises ValueError, KeyError or struct.error where the block is not plain.
    """
    order = ORDERS[tiff[:4]]
    start, = struct.unpack_from(order + "I", tiff, 4)
    count, = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values, value = struct.unpack_from(order + "HHIH", tiff, at)
        if tag == TAG:
            if (kind, values) != (SHORT, 1):
                raise ValueError("orientation is not one short")
            return value
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view of uint8 pixels (H, W, C) as the photo is meant to be seen."""
    return UPRIGHT[orientation](pixels) if orientation in UPRIGHT else pixels


SOI = b"\xff\xd8"
BASELINE, PROGRESSIVE, DQT, SOS = 0xC0, 0xC2, 0xDB, 0xDA
ALL_COEFFICIENTS = b"\0\x3f\0"  # what the scan of a sequential JPEG must say
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
WITHOUT_LENGTH = {*range(0xD0, 0xDA)}  # restart markers, SOI, EOI
JFIF, EXIF, PROFILE, ADOBE = (0xE0, b"JFIF\0"), (0xE1, b"Exif\0\0"), (0xE2, b"ICC_PROFILE\0"), (0xEE, b"Adobe")
METADATA = {*range(0xE0, 0xF0), 0xFE}  # APPn, COM
Segments = list[tuple[int, bytes]]  # marker, payload


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


def read_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG; None where anything in it is odd, so that a decoder must judge."""
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


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, first byte and end of each segment up to the first scan's header."""
    at, marker = len(SOI), 0
    while marker != SOS:
        while data[at:at + 2] == b"\xff\xff":  # fill bytes, B.1.1.2
            at += 1
        prefix, marker, length = struct.unpack_from(">BBH", data, at)
        if prefix != 0xFF or marker < 0xC0 or marker in WITHOUT_LENGTH:
            raise ValueError("not a segment")
        yield marker, at, at + 2 + length
        at += 2 + length


def _header(segments: Segments) -> JpegHeader:
    (process, frame), = [segment for segment in segments if segment[0] in FRAMES]
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    if len(frame) != 6 + 3 * components or components not in (1, 3, 4) or not width or not height:
        raise ValueError("not a frame of known size and colors")
    scan = segments[-1][1]
    if process != PROGRESSIVE and not scan.endswith(ALL_COEFFICIENTS):
        raise ValueError("a scan of some coefficients in a sequential JPEG")
    return JpegHeader(
        process, bits, width, height, tuple(frame[7::3]), _is_ycbcr(segments, frame[6::3]),
        interleaved=scan[0] == components,
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
