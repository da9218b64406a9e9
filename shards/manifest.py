"""Read and write dataset.json, the file that makes a folder a dataset."""
import json
import re
from pathlib import Path
from typing import Any

from arcshard.console import UserError
from arcshard.files import write_text
from arcshard.untrusted import parse_json
from shards.content import CLS
from shards.format import FORMAT_VERSION, MANIFEST, SPLIT_PATTERN, UNFINISHED, shard_name

KEYS = {"format_version", "num_classes", "packing", "splits", "files"}
DIGEST = re.compile("[0-9a-f]{64}")
REMEDY = "rebuild it with python -m shards repair"


class LostManifest(UserError):
    """dataset.json is missing or damaged, where the rest of a dataset may well be there."""


def read_manifest(path: str | Path) -> dict[str, Any]:
    """dataset.json of the dataset in folder `path`.

    Keys: format_version, num_classes, packing (the options), splits {name: {samples, shards}} and files
    {name: {size in bytes, sha256}}, which lists all but dataset.json. Raises UserError if this is no dataset:
    LostManifest if the other files can restore it.
    """
    path = Path(path)
    try:
        return parse_manifest((path / MANIFEST).read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """The manifest in the bytes of a dataset.json; `where` names its folder. Raises as read_manifest does."""
    try:
        manifest = parse_json(data)
    except ValueError:
        raise LostManifest(f"{where}/{MANIFEST} is not valid JSON: {REMEDY}") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise UserError(f"{where} has format version {version}, and this arcshard reads version {FORMAT_VERSION}: "
                        "pack it again, or use the arcshard that wrote it")
    if fault := _fault(manifest):
        raise LostManifest(f"{where}/{MANIFEST} {fault}: {REMEDY}")
    return manifest


def label_source(manifest: dict[str, Any]) -> str:
    """Where the labels come from: "cls", the members of the tars, except where adopt took them from elsewhere."""
    return manifest["packing"].get("label_from", CLS)


def shard_sizes(manifest: dict[str, Any], split: str) -> list[int]:
    """Bytes of each tar of a split, by its number."""
    return [manifest["files"][f"{shard_name(split, number)}.tar"]["size"]
            for number in range(manifest["splits"][split]["shards"])]


def table_size(manifest: dict[str, Any]) -> int:
    """Bytes of all files that belong to no single tar."""
    return sum(entry["size"] for name, entry in manifest["files"].items() if not name.endswith((".tar", ".idx")))


def write_manifest(path: Path, num_classes: int, splits: dict[str, Any], packing: dict[str, Any],
                   files: dict[str, Any]) -> None:
    """Write dataset.json into folder `path`; it appears whole."""
    write_text(path / MANIFEST, manifest_text(num_classes, splits, packing, files))


def manifest_text(num_classes: int, splits: dict[str, Any], packing: dict[str, Any], files: dict[str, Any]) -> str:
    """The text of a dataset.json, with the keys that read_manifest explains."""
    manifest = {"format_version": FORMAT_VERSION, "num_classes": num_classes, "splits": dict(sorted(splits.items())),
                "packing": packing, "files": dict(sorted(files.items()))}
    return json.dumps(manifest, indent=1) + "\n"


def _fault(manifest: Any) -> str | None:
    """What is wrong with the form of a manifest."""
    if not isinstance(manifest, dict):
        return "is not a JSON object"
    if missing := KEYS - manifest.keys():
        return f"lacks {', '.join(sorted(missing))}"
    if not _is_count(manifest["num_classes"], 0):
        return "has a num_classes that is no count"
    if not isinstance(manifest["packing"], dict):
        return "has a packing that is no object"
    for what, is_good in (("splits", _is_split), ("files", _is_file)):
        entries = manifest[what]
        if not isinstance(entries, dict) or not entries:
            return f"names no {what}"
        if wrong := [name for name, entry in entries.items() if not is_good(name, entry)]:
            return f"has damaged {what}, the first {wrong[0]!r}"
    return None


def _is_split(name: str, entry: Any) -> bool:
    return (re.fullmatch(SPLIT_PATTERN, name) is not None and isinstance(entry, dict)
            and entry.keys() == {"samples", "shards"} and all(_is_count(value, 1) for value in entry.values()))


def _is_file(name: str, entry: Any) -> bool:
    return ("/" not in name and isinstance(entry, dict) and entry.keys() == {"size", "sha256"}
            and _is_count(entry["size"], 0) and isinstance(entry["sha256"], str)
            and DIGEST.fullmatch(entry["sha256"]) is not None)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and least <= value < 2**63


def _missing(path: Path) -> UserError:
    if not path.is_dir():
        return UserError(f"there is no folder {path}: give a dataset that preprocess/make_shards.py wrote")
    if (path / UNFINISHED).is_dir():
        return UserError(f"{path} is not a dataset yet, its packing was interrupted: run the same make_shards.py "
                         "command again")
    if any(path.glob("*.tar")):
        return LostManifest(f"{path} has tars but no {MANIFEST}: {REMEDY}")
    return UserError(f"{path} is not a dataset, it has no {MANIFEST}: give the folder that preprocess/make_shards.py "
                     "wrote")
