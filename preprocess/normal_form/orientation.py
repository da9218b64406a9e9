"""EXIF's orientation tag: read it, undo it (EXIF 2.32, section 4.6.4 A and table 7)."""
import struct

import numpy as np

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
