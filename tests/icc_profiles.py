"""ICC profiles made from the numbers of their specifications (ICC.1:2022), since none may be shipped.

Matrix profiles: Adobe RGB (1998), section 4.3, and Display P3 (SMPTE EG 432-1 primaries, sRGB's curve).
"""
import struct

import numpy as np

D50, D65 = np.array([0.9642, 1.0, 0.8249]), np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
GAMMA_22 = b"curv" + struct.pack(">IIH", 0, 1, 563)  # 2 51/256, as u8Fixed8
SRGB_CURVE = b"para" + struct.pack(">IHH5i", 0, 3, 0, *(round(65536 * v) for v in (
    2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
COARSE = np.arange(26) / 25
SRGB_TABLE = b"curv" + struct.pack(">II26H", 0, 26, *np.round(65535 * np.where(
    COARSE <= 0.04045, COARSE / 12.92, ((COARSE + 0.055) / 1.055) ** 2.4)).astype(int))
SRGB_PRIMARIES = [(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)]


def matrix_profile(primaries: list[tuple[float, float]], curve: bytes) -> bytes:
    """A display profile: primaries are (x, y) of red, green and blue; white is D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    to_d50 = _adapt(D65, D50) @ columns * np.linalg.solve(columns, D65)
    tags = {f"{name}XYZ": _xyz(to_d50[:, i]) for i, name in enumerate("rgb")}
    return _profile(b"mntrRGB XYZ ", {"wtpt": _xyz(D50), **tags, **{f"{name}TRC": curve for name in "rgb"}})


def gray_profile(curve: bytes) -> bytes:
    return _profile(b"mntrGRAYXYZ ", {"wtpt": _xyz(D50), "kTRC": curve})


def cmyk_profile(corners: np.ndarray) -> bytes:
    """A printer profile that interpolates between the 16 corners: Lab of no or full C, M, Y, K, uint8 (2, 2, 2, 2, 3).

    uint8 Lab: L × 2.55, a + 128, b + 128.
    """
    identity = bytes(range(256))
    head = b"mft1" + struct.pack(">I4B9i", 0, 4, 3, 2, 0, *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    table = head + 4 * identity + corners.tobytes() + 3 * identity
    return _profile(b"prtrCMYKLab ", {"wtpt": _xyz(D50), "A2B0": table})


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """CIE Lab (D50) -> sRGB in gray levels, float (CIE 15, IEC 61966-2-1)."""
    f = (lab[0] + 16) / 116 + np.array([lab[1] / 500, 0, -lab[2] / 200])
    xyz = _adapt(D50, D65) @ (D50 * np.where(f > 6 / 29, f ** 3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in SRGB_PRIMARIES]).T
    linear = np.clip(np.linalg.solve(columns * np.linalg.solve(columns, D65), xyz), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _adapt(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.linalg.inv(BRADFORD) @ np.diag(BRADFORD @ target / (BRADFORD @ source)) @ BRADFORD


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *(round(65536 * v) for v in values))


def _profile(kind: bytes, tags: dict[str, bytes]) -> bytes:
    """kind: class, color space and connection space."""
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI", start + len(body), b"\0" * 4, 0x02400000) + kind + bytes(12) + b"acsp" + bytes(28)
    return head + _xyz(D50)[8:] + bytes(48) + table + body


ADOBE_RGB = matrix_profile([(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)], GAMMA_22)
DISPLAY_P3 = matrix_profile([(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)], SRGB_CURVE)
SRGB = matrix_profile(SRGB_PRIMARIES, SRGB_CURVE)
COARSE_SRGB = matrix_profile(SRGB_PRIMARIES, SRGB_TABLE)
NEARLY_SRGB = matrix_profile(SRGB_PRIMARIES, GAMMA_22)
