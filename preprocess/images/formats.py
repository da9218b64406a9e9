"""Which files are taken for photos: by name, by format, by size."""
import argparse
import re

PHOTO_ENDINGS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2",
    ".jpx", ".jpf", ".j2k", ".j2c", ".jpc", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"})
"""In lower case. Files with other endings in a folder of photos are counted and left out."""

# Not all that Pillow reads: its EPS reader, for example, starts Ghostscript on the file. TGA comes last, since it has
# no mark of its own, only a header of plausible numbers.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM", "TGA")
# What files that Pillow does not take for any of these begin with, and why they are rejected.
REASONS = {
    rb".{4}ftyp.{,64}avi[fs]": "truncated or corrupt: AVIF without its header",
    rb".{4}ftyp(he[iv].|mif1|msf1)": "is HEIC: convert it to JPEG",
    rb"\xff\x0a|\0{3}\x0cJXL ": "is JPEG XL: convert it to JPEG",
    rb"FUJIFILMCCD-RAW|IIR[OS]|IIU\0|.{4}ftypcrx|.{8}CR\x02": "is a camera's raw file: convert it to JPEG",
    rb"\s*(<[?!](xml|--|DOCTYPE svg)[^>]*>\s*)*<svg": "is SVG: convert it to JPEG",
    rb"%PDF": "is PDF: convert it to JPEG"}

MAX_PIXELS = 89_478_485  # Pillow's limit: 256 MiB of RGB


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the option of the commands that decode photos."""
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, metavar="N",
                        help="reject photos of more pixels, for each of which a worker needs up to 20 bytes (default: "
                             f"{MAX_PIXELS:,})")


def why_unread(data: bytes) -> str:
    """Why a file that is of none of FORMATS is rejected."""
    return next((why for start, why in REASONS.items() if re.match(start, data[:4096], re.DOTALL)), "not an image")
