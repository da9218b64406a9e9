"""A file that is not whole yet: NAME.part has its first bytes, NAME.part.json says of which file."""
import base64
import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from google_crc32c import Checksum

from arcshard.console import UserError, progress
from arcshard.files import sync_folder
from preprocess.fetching.served_file import ServedFile, read_record, write_record

CHUNK = 1 << 20  # bytes read at once
MB = 10**6


class PartFile(NamedTuple):
    """The part of the file that will be `whole`. A kill at any moment leaves bytes that their record describes."""

    whole: Path

    @property
    def bytes(self) -> Path:
        return self.whole.with_name(self.whole.name + ".part")

    @property
    def record(self) -> Path:
        return self.whole.with_name(self.whole.name + ".part.json")

    def size(self) -> int:
        return self.bytes.stat().st_size if self.bytes.exists() else 0

    def known(self) -> ServedFile | None:
        """The file that the bytes are from, None if that is not known."""
        return read_record(self.record)

    def start(self, served: ServedFile) -> None:
        """Forget what is there; the bytes to come are from `served`."""
        self.bytes.unlink(missing_ok=True)
        sync_folder(self.whole.parent)  # else a power cut could bring back old bytes under the new record
        write_record(self.record, served)

    def finish(self, served: ServedFile) -> None:
        """Check the bytes and give them their final name, or delete them and raise UserError."""
        fault = self._fault(served)
        if fault:
            self.bytes.unlink()
            self.record.unlink()
            raise UserError(f"{self.whole.name} must come as Kaggle announced it, but {fault}: it was deleted, run the "
                            "same command again")
        with open(self.bytes, "rb") as f:
            os.fsync(f.fileno())
        os.replace(self.bytes, self.whole)
        sync_folder(self.whole.parent)
        self.record.unlink()

    def _fault(self, served: ServedFile) -> str | None:
        if served.md5 and self._digest(hashlib.md5(usedforsecurity=False), "MD5") != served.md5:
            return "its MD5 is another"
        if not served.md5 and served.crc32c and self._digest(Checksum(), "CRC32C") != served.crc32c:
            return "its CRC32C is another"
        if self.whole.suffix == ".zip" and not zipfile.is_zipfile(self.bytes):
            return "it has no zip directory at its end"
        return None

    def _digest(self, digest: Any, name: str) -> str:
        """Hash of the bytes on the disk, in base64."""
        with open(self.bytes, "rb") as f, progress(total=self.size() // MB, unit="MB", what=f"checking {name}") as bar:
            while chunk := f.read(CHUNK):
                digest.update(chunk)
                bar.update(f.tell() // MB - bar.n)
        return base64.b64encode(digest.digest()).decode()
