"""Which files are photos."""

PHOTO_ENDINGS = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif",
    ".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jpc", ".tga", ".ico", ".ppm", ".pgm", ".pbm", ".pnm"})
"""In lower case. Files with other endings in a folder of photos are counted and left out."""
