"""Find photos in a folder laid out as Google Landmarks on Kaggle, or in a flat one."""
from pathlib import Path

from preprocess.normal_form import Rejected

FOLDERS = ("{0}/{1}/{2}", "train/{0}/{1}/{2}", "test/{0}/{1}/{2}", "index/{0}/{1}/{2}", ".")


def read_photo(images: Path, key: str) -> bytes:
    """Bytes of <key>.jpg, looked for in a/b/c/, train/a/b/c/, test/a/b/c/, index/a/b/c/ and images itself.

    a, b and c are the first three characters of the key. Raises Rejected if it is nowhere or cannot be read.
    """
    for folder in FOLDERS if len(key) >= 3 else FOLDERS[-1:]:
        try:
            return (images / folder.format(*key) / f"{key}.jpg").read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Rejected(f"unreadable: {error.strerror}") from None
    raise Rejected("file not found")
