"""Photos in an ImageFolder tree: one folder a class, and the photos anywhere in it."""
import os
from collections.abc import Iterator
from pathlib import PurePosixPath

import fsspec
import pandas as pd

from arcshard.console import UserError
from preprocess.samples.photo_ids import ids_from_paths
from preprocess.samples.sample_table import check_paths

PHOTOS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}


def read_class_folders(tree: str) -> tuple[pd.DataFrame, int]:
    """The photos in a local folder or fsspec URL, sorted by path, and how many other files there are.

    Columns id (see ids_from_paths), landmark_id (the folder's name), path (relative, /). Linked folders are followed;
    names that begin with a dot are neither photos nor classes. Raises UserError for a tree without photos
    or with one outside the class folders.
    """
    files = sorted(_files(tree))
    paths = [path for path in files if _is_photo(path)]
    if not paths:
        raise UserError(f"--image-folder must hold a folder of photos for each class, but {tree} has no photo: "
                        "check the path")
    outside = [path for path in paths if "/" not in path]
    if outside:
        raise UserError(f"each photo must lie in the folder of its class, but {tree} has {outside[0]!r} "
                        f"({len(outside):,} such photos): move them")
    table = pd.DataFrame({"path": _texts(paths, tree)})
    check_paths(table["path"], tree)
    classes = table["path"].str.partition("/")[0].astype("category")
    return table.assign(id=ids_from_paths(table["path"]), landmark_id=classes), len(files) - len(paths)


def _is_photo(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in PHOTOS and not path.startswith(".") and "/." not in path


def _texts(paths: list[str], tree: str) -> pd.Series:
    try:
        return pd.Series(paths, dtype="str")
    except UnicodeEncodeError as error:  # what os.fsdecode makes of other bytes
        raise UserError(f"a photo's name must be UTF-8, but {tree} has {error.object!r}: rename it") from None


def _files(tree: str) -> Iterator[str]:
    """Paths relative to the tree."""
    if "://" not in tree:
        for folder, _, names in os.walk(tree, followlinks=True):  # fsspec's listing does not follow links
            inside = os.path.relpath(folder, tree)
            yield from (os.path.normpath(os.path.join(inside, name)) for name in names)
        return
    try:
        fs, root = fsspec.core.url_to_fs(tree)
    except (ImportError, ValueError) as error:
        raise UserError(f"{tree} cannot be read ({error}): check the URL, or install what reads it") from None
    yield from (path.removeprefix(root).lstrip("/") for path in fs.find(root))
