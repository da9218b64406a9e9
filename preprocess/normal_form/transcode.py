"""Progressive JPEG -> baseline with the same DCT coefficients: only the entropy coding is done anew."""
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import jpeglib

from preprocess.normal_form.jpeg_header import without_metadata

jpeglib.version.set("turbo210")  # of simplejpeg's line; the default, libjpeg 6b, complains to stderr of fine files
LOCK = threading.Lock()  # jpeglib counts markers in global variables: without it, 8 threads made it fail


def to_baseline(data: bytes) -> bytes | None:
    """The same photo as baseline JPEG without metadata; None where jpeglib cannot.

    data: a JPEG that passed strict decoding, since damage can crash jpeglib. The caller compares the pixels. Raises
    OSError only when the temporary folder cannot be written.
    """
    with LOCK, TemporaryDirectory() as folder:
        source, target = Path(folder, "source.jpg"), Path(folder, "target.jpg")
        source.write_bytes(without_metadata(data))
        try:
            jpeg = jpeglib.read_dct(source)
            jpeg.load()
            jpeg.qt = 0  # a number: keep the tables of the source, and with them its component ids
            jpeg.write_dct(target, flags=["+OPTIMIZE_CODING"])
        except OSError as error:
            if error.errno:
                raise
            return None
        return target.read_bytes()
