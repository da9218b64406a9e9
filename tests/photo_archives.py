"""Made-up photos in tars and zips, for the tests of preprocess/sources."""
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from preprocess.rejected import Rejected
from preprocess.sources import Place

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


def tar_bytes(files: Mapping[str, bytes], tar_format: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
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


def outcome(place: Place) -> bytes | str:
    """The photo's bytes, or the reason why it was rejected."""
    try:
        return place.read()
    except Rejected as reason:
        return str(reason)
