"""Where a dataset is written: a local folder, or a folder in object storage named by any fsspec URL.

Both promise the packer the same: a file or a finished shard appears whole or not at all, and nothing in the work folder
`.packing` is taken for a dataset. Object storage has no rename and no lock: there a shard counts as kept once its
part.json, uploaded last, exists, and two packers of the same table write the same bytes.
"""
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from arcshard.console import UserError, expand_home
from arcshard.files import folder_lock, sync_folder, whole_file
from arcshard.untrusted import parse_json
from arcshard.urls import filesystem, is_url
from shards.format import UNFINISHED

# A finished shard waits in a folder of its own until the dataset is published: .packing/train-000012/ holds shard.tar,
# shard.idx, rows.npy (index rows), labels.npy and part.json (number of samples, rejected photos with their reasons,
# size and sha256 of tar and idx).

TAR, IDX, ROWS, LABELS, PART = "shard.tar", "shard.idx", "rows.npy", "labels.npy", "part.json"
SCRATCH = "scratch-"  # prefix of folders that a killed task leaves behind


class Output(Protocol):
    """The folder that becomes a dataset; picklable, so that workers write to it too. Names are relative to it."""

    url: str

    def names(self, folder: str = "") -> set[str]:
        """Names of the files and folders in it or in one of its folders; empty if there is none."""

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading. Raises FileNotFoundError."""

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole."""

    def put(self, path: Path, name: str) -> None:
        """Bring a local file in, whole; `path` may be gone afterwards."""

    def move(self, source: str, name: str) -> None:
        """Rename a file within the folder; do nothing if `source` was moved before."""

    def remove(self, name: str) -> None:
        """Delete a file if it exists."""

    def remove_tree(self, folder: str) -> None:
        """Delete a folder and everything in it if it exists."""

    def keep(self, folder: Path, name: str) -> None:
        """Turn a finished local folder into .packing/name, whole."""

    def kept(self) -> set[str]:
        """Names given to keep()."""

    def scratch(self) -> AbstractContextManager[str]:
        """A local folder for one task's files; deleted when the task ends."""

    def local_work(self) -> Path:
        """A local folder that lasts as long as .packing does."""

    def remove_work(self) -> None:
        """Delete .packing and the local work folder."""

    def free_bytes(self) -> int | None:
        """Space left on its disk; None: not limited."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep other packers out, where storage can. Raises UserError if another process holds the lock."""


def read_object(output: Output, name: str, kinds: Mapping[str, type] = {}) -> dict[str, Any]:
    """A JSON object of the work folder. Raises UserError for anything else, and unless it has keys of these kinds."""
    with output.open(name) as f:
        data = f.read()
    with work_of(output, name):
        found = parse_json(data)
        if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in kinds.items()):
            raise ValueError("is no JSON object of its kind")
        return found


@contextmanager
def work_of(output: Output, name: str) -> Iterator[None]:
    """Raise UserError for a ValueError about a file of the work folder."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{output.url}/{name} is damaged ({error}): delete {output.url}/{UNFINISHED} and run the same "
                        "command again") from None


def open_output(where: str | Path) -> Output:
    """The output at a local path or fsspec URL. Raises UserError for a protocol that fsspec does not know."""
    text = expand_home(where)
    if not is_url(text) or text.startswith("file://"):
        return LocalOutput(str(Path(text.removeprefix("file://")).absolute()))
    return RemoteOutput(text.rstrip("/"))


class LocalOutput:
    """A local folder: files are written aside and renamed, the kernel keeps the lock. Methods: see Output."""

    def __init__(self, url: str):
        self.url = url
        self.path, self.work = Path(url), Path(url) / UNFINISHED

    def names(self, folder: str = "") -> set[str]:
        try:
            return {entry.name for entry in (self.path / folder).iterdir()}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> BinaryIO:
        return open(self.path / name, "rb")

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path / name) as f:
            f.write(data)

    def put(self, path: Path, name: str) -> None:
        os.replace(path, self.path / name)

    def move(self, source: str, name: str) -> None:
        if (self.path / source).exists():
            os.replace(self.path / source, self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def remove_tree(self, folder: str) -> None:
        shutil.rmtree(self.path / folder, ignore_errors=True)

    def keep(self, folder: Path, name: str) -> None:
        for path in folder.iterdir():
            with open(path, "rb") as f:
                os.fsync(f.fileno())
        sync_folder(folder)
        try:
            os.rename(folder, self.work / name)
        except OSError as error:
            # A worker that outlived a killed packer may have been first; the same task gives the same bytes.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        sync_folder(self.work)

    def kept(self) -> set[str]:
        return {path.parent.name for path in self.work.glob(f"*/{PART}") if not path.parent.name.startswith(SCRATCH)}

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self.work, ignore_cleanup_errors=True)

    def local_work(self) -> Path:
        self.work.mkdir(parents=True, exist_ok=True)
        return self.work

    def remove_work(self) -> None:
        self.remove_tree(UNFINISHED)

    def free_bytes(self) -> int | None:
        there = next(path for path in [self.path, *self.path.parents] if path.exists())
        return shutil.disk_usage(there).free

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Creates the folder if it is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with folder_lock(self.path):
            yield


class RemoteOutput:
    """A folder in object storage: whole uploads, server-side copies, no lock. Methods: see Output."""

    def __init__(self, url: str):
        self.url = url
        # Listings are never cached: other processes write here.
        self.fs, self.root = filesystem(url, use_listings_cache=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteOutput, (self.url,)

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}".rstrip("/")

    def names(self, folder: str = "") -> set[str]:
        try:
            return {path.rstrip("/").rpartition("/")[2] for path in self.fs.ls(self._at(folder), detail=False)}
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.fs.open(self._at(name), "rb"))

    def write(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(self._at(name), data)

    def put(self, path: Path, name: str) -> None:
        self.fs.put_file(str(path), self._at(name))

    def move(self, source: str, name: str) -> None:
        if self.fs.exists(self._at(source)):
            self.fs.mv(self._at(source), self._at(name))

    def remove(self, name: str) -> None:
        if self.fs.exists(self._at(name)):
            self.fs.rm_file(self._at(name))

    def remove_tree(self, folder: str) -> None:
        if self.fs.exists(self._at(folder)):
            self.fs.rm(self._at(folder), recursive=True)

    def keep(self, folder: Path, name: str) -> None:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == PART):
            self.put(path, f"{UNFINISHED}/{name}/{path.name}")

    def kept(self) -> set[str]:
        work = self._at(UNFINISHED)
        found = self.fs.find(work) if self.fs.exists(work) else []
        return {path.rsplit("/", 2)[1] for path in found if path.endswith(f"/{PART}")}

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="arcshard-", ignore_cleanup_errors=True)

    def local_work(self) -> Path:
        folder = Path(tempfile.gettempdir()) / f"arcshard-{hashlib.sha256(self.url.encode()).hexdigest()[:16]}"
        folder.mkdir(exist_ok=True)
        return folder

    def remove_work(self) -> None:
        self.remove_tree(UNFINISHED)
        shutil.rmtree(self.local_work(), ignore_errors=True)

    def free_bytes(self) -> int | None:
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Does nothing: object storage has no lock that is freed when its holder dies."""
        yield
