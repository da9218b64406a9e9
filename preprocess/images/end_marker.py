"""JPEGs that lack nothing but their end marker, as some cameras and downloads leave them."""
import re
import struct
from collections.abc import Iterator

import numpy as np

from shards.jpeg import BASELINE, PROGRESSIVE, SOI, SOS

EOI = b"\xff\xd9"
# Frames whose scans a decoder knows to be cut; it takes any arithmetic code for whole.
HUFFMAN = range(BASELINE, PROGRESSIVE + 1)
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # neither a stuffed byte nor a restart


def completed(jpeg: bytes) -> bytes | None:
    """The JPEG with an end marker; None if a scan is missing. Whether the last scan is whole, strict decoding tells."""
    whole = jpeg.rstrip(EOI[:1]) + EOI
    try:
        return whole if _has_all_scans(whole) else None
    except (IndexError, struct.error):
        return None


def _has_all_scans(jpeg: bytes) -> bool:
    """Whether every component has all bits of all 64 coefficients (ITU-T T.81, B.2.3 and G.1.1.1)."""
    components, whole = [256], np.zeros((257, 64), bool)
    for marker, payload in _segments(jpeg):
        if marker in HUFFMAN:
            components = list(payload[6:6 + 3 * payload[5]:3])
        elif marker == SOS:
            count = payload[0]
            first, last, bits = payload[1 + 2 * count:]
            whole[list(payload[1:1 + 2 * count:2]), first:last + 1] = bits & 15 == 0
    return bool(whole[components].all())


def _segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and payload of each segment, those between and after scans too."""
    at = len(SOI)
    while (marker := MARKER.search(jpeg, at)) and marker[1] != EOI[1:]:
        length, = struct.unpack_from(">H", jpeg, marker.end())
        at = marker.end() + length
        yield marker[1][0], jpeg[marker.end() + 2:at]
