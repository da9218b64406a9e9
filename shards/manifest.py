"""Read dataset.json, the file that makes a folder a dataset."""
import json
from pathlib import Path
from typing import Any

from arcshard.console import UserError
from shards.format import FORMAT_VERSION, MANIFEST, UNFINISHED

KEYS = {"format_version", "num_classes", "packing", "splits", "files"}


def read_manifest(path: str | Path) -> dict[str, Any]:
    """dataset.json of the dataset in folder `path`.

    Keys: format_version, num_classes, packing (the options), splits {name: {samples, shards}} and files
    {name: {size in bytes, sha256}}, which lists all but dataset.json. Raises UserError for what is not a
    dataset.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(_why_missing(path)) from None
    except ValueError:
        raise UserError(f"{path / MANIFEST} must be JSON, but is not: pack the dataset again") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(f"this arcshard reads datasets of format version {FORMAT_VERSION}, but {path} has "
                        f"version {version}: pack it again, or use the arcshard that wrote it")
    missing = sorted(KEYS - manifest.keys())
    if missing:
        raise UserError(f"{path / MANIFEST} must hold {', '.join(sorted(KEYS))}, but lacks {', '.join(missing)}: "
                        "pack the dataset again")
    return manifest


def _why_missing(path: Path) -> str:
    if not path.is_dir():
        return (f"a dataset is a folder that preprocess/make_shards.py made, but there is no folder {path}: "
                "check the path")
    if (path / UNFINISHED).is_dir():
        return (f"{path} is not a dataset yet, its packing was interrupted: run the same make_shards.py "
                "command again")
    return (f"a dataset is a folder that holds {MANIFEST}, but {path} has none: give the folder that "
            "preprocess/make_shards.py wrote")
