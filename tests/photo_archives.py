"""Made-up photos in tars and zips, for the tests of preprocess/sources."""
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from preprocess.images.decode import Rejected
from preprocess.sources import PhotoLocation

KEYS = [f"{number * 2654435761 % 2**32:08x}" for number in range(1, 13)]
PHOTOS = {key: f"photo {key} ".encode() * (5 + number) for number, key in enumerate(KEYS)}


def kaggle_path(key: str, folder: str = "") -> str:
    """a/b/c/<key>.jpg below a folder."""
    return f"{folder}{key[0]}/{key[1]}/{key[2]}/{key}.jpg"


NAMED = {kaggle_path(key): data for key, data in PHOTOS.items()}


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar_bytes(files: Mapping[str, bytes], tar_format: int = tarfile.USTAR_FORMAT,
              global_header: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format, pax_headers=global_header) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def zip_bytes(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return out.getvalue()


LONG = {f"{'folder/' * 40}{kaggle_path(key)}": data for key, data in PHOTOS.items()}
TARS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def streamed_zip() -> bytes:
    """Written without seeking: sizes follow each member's data."""
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in NAMED.items():
            z.writestr(name, data)
    return out.getvalue()


def zip64() -> bytes:
    """Local and central headers with zip64 fields, among 65,536 members and more: a zip64 end record."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in NAMED.items():
            with z.open(name, "w", force_zip64=True) as f:
                f.write(data)
        for number in range(1 << 16):
            z.writestr(zipfile.ZipInfo(f"{number:x}.png"), b"")
    return out.getvalue()


def long_headers() -> bytes:
    """Extra fields and comments as long as they can be."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in NAMED.items():
            member = zipfile.ZipInfo(f"{'f' * 600}/{name}")
            member.extra, member.comment = struct.pack("<HH", 0xCAFE, 5000) + bytes(5000), b"c" * 65535
            z.writestr(member, data)
        z.comment = b"c" * 65535
    return out.getvalue()


ARCHIVES = {
    **{kind: tar_bytes(NAMED, number) for kind, number in TARS.items()},
    **{f"{kind} long": tar_bytes(LONG, TARS[kind]) for kind in ("gnu", "pax")},
    "stored": zip_bytes(NAMED), "deflated": zip_bytes(NAMED, zipfile.ZIP_DEFLATED), "streamed": streamed_zip(),
    "zip64": zip64(), "long headers": long_headers(),
    "global": tar_bytes(NAMED, tarfile.PAX_FORMAT, {"comment": "made by git"}),
    "dot": tar_bytes({f"./{name}": data for name, data in NAMED.items()}),
}


def outcome(place: PhotoLocation) -> bytes | str:
    """The photo's bytes, or the reason why it was rejected."""
    try:
        return place.read()
    except Rejected as reason:
        return str(reason)
