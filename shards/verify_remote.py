"""Compare a dataset in object storage with its dataset.json; nothing is kept on this machine."""
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from arcshard.console import progress
from arcshard.urls import filesystem, reaching
from shards.entry import OTHER_DIGEST, FileEntry
from shards.folder import read_remote_manifest
from shards.format import MANIFEST
from shards.remote import WrongBytes, download

THREADS = 4


def verify_remote(url: str) -> list[str]:
    """One sentence for each file that is not as it was packed, its name first; [] if all are.

    dataset.json holds the sha256 of every other file, so what `verify` found whole is whole here if these agree. Raises
    UserError for what is no dataset, and if the server cannot be reached.
    """
    url = url.rstrip("/")
    files, sizes = read_remote_manifest(url)["files"], _sizes(url)
    faults = [*_listing_faults(files, sizes)]
    names = [name for name, entry in files.items() if sizes.get(name) == entry["size"]]
    with progress(total=len(names), unit="file", what="verify") as bar, ThreadPoolExecutor(THREADS) as pool:
        for name, is_packed in zip(names, pool.map(lambda name: _has_packed_bytes(url, name, files[name]), names)):
            if not is_packed:
                faults.append(f"{name}: {OTHER_DIGEST}")
            bar.update()
    return faults


def _sizes(url: str) -> dict[str, int]:
    """Bytes of each file in the folder."""
    with reaching(url):
        fs, path = filesystem(url)
        fs.invalidate_cache()
        return {info["name"].rpartition("/")[2]: info["size"] for info in fs.ls(path, detail=True)}


def _listing_faults(files: dict[str, FileEntry], sizes: dict[str, int]) -> Iterator[str]:
    for name in sorted(sizes.keys() - {MANIFEST, *files}):
        yield f"{name}: an extra file that {MANIFEST} does not list"
    for name, entry in sorted(files.items()):
        if name not in sizes:
            yield f"{name}: missing"
        elif sizes[name] != entry["size"]:
            yield f"{name}: has {sizes[name]} bytes, was packed with {entry['size']}"


def _has_packed_bytes(url: str, name: str, entry: FileEntry) -> bool:
    with open(os.devnull, "wb") as nowhere:
        try:
            download(f"{url}/{name}", entry, nowhere, Event())
        except WrongBytes:
            return False
    return True
