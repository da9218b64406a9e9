"""Read and write dataset.json, the file that makes a folder a dataset."""
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

from arcshard.console import UserError
from arcshard.files import sha256, write_text
from shards.format import FORMAT_VERSION, MANIFEST, SPLIT_PATTERN, UNFINISHED, shard_name

# Size and sha256 of what passes through a file, so that nobody needs to read it again.


class HashingStream:
    """A binary file that is read or written from its start to its end.

        with open(path, "wb") as f:
            stream = HashingStream(f)
            rows, labels = write_tar(stream, samples)
        stream.size, stream.sha256
    """

    def __init__(self, stream: BinaryIO):
        self._stream, self._digest, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self._pass(data)
        return self._stream.write(data)

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end of the file."""
        data = self._stream.read(size)
        self._pass(data)
        return data

    @property
    def sha256(self) -> str:
        """Hex digest of the bytes so far."""
        return self._digest.hexdigest()

    def _pass(self, data: bytes) -> None:
        self._digest.update(data)
        self.size += len(data)


# What dataset.json says of each other file: its size and sha256.

class FileEntry(TypedDict):
    """Size in bytes, and the hex digest of the content."""

    size: int
    sha256: str


def file_entry(path: Path) -> FileEntry:
    """The entry of a file as it is."""
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def entry_faults(name: str, found: FileEntry, packed: FileEntry) -> Iterator[str]:
    """At most one sentence on how the file `name` differs from the entry that it was packed with."""
    if found["size"] != packed["size"]:
        yield f"{name}: has {found['size']} bytes, was packed with {packed['size']}"
    elif found["sha256"] != packed["sha256"]:
        yield f"{name}: its sha256 is not the one it was packed with"


KEYS = {"format_version", "num_classes", "packing", "splits", "files"}
DIGEST = re.compile("[0-9a-f]{64}")
REMEDY = "rebuild it with python -m shards repair"


class LostManifest(UserError):
    """dataset.json is missing or damaged, where the rest of a dataset may well be there."""


def read_manifest(path: str | Path) -> dict[str, Any]:
    """dataset.json of the dataset in folder `path`.

    Keys: format_version, num_classes, packing (the options), splits {name: {samples, shards}} and files
    {name: {size in bytes, sha256}}, which lists all but dataset.json. Raises UserError for what is not a
    dataset, of which LostManifest where its other files can mend it.
    """
    path = Path(path)
    try:
        return parse_manifest((path / MANIFEST).read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """The manifest in the bytes of a dataset.json; `where` names its folder. Raises as read_manifest does."""
    try:
        manifest = json.loads(data)
    except ValueError:
        raise LostManifest(f"{where}/{MANIFEST} is not valid JSON: {REMEDY}") from None
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise UserError(f"this arcshard reads datasets of format version {FORMAT_VERSION}, but {where} has "
                        f"version {version}: pack it again, or use the arcshard that wrote it")
    if fault := _fault(manifest):
        raise LostManifest(f"{where}/{MANIFEST} {fault}: {REMEDY}")
    return manifest


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
    if not isinstance(manifest, dict) or KEYS - manifest.keys():
        missing = KEYS - manifest.keys() if isinstance(manifest, dict) else KEYS
        return f"must hold {', '.join(sorted(KEYS))}, but lacks {', '.join(sorted(missing))}"
    if not _is_count(manifest["num_classes"], 0) or not isinstance(manifest["packing"], dict):
        return "must hold a count of classes and the options of its packing"
    for what, is_good in (("splits", _is_split), ("files", _is_file)):
        entries = manifest[what]
        if not isinstance(entries, dict) or not entries:
            return f"must name its {what}"
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
    return isinstance(value, int) and value >= least


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
