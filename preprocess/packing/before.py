"""What an output holds before the shards of this call are added: a dataset, or nothing."""
import csv
import io
import shutil
from typing import Any, BinaryIO

import numpy as np

from preprocess.packing.output import Output
from shards.format import CLASSES, MANIFEST, REJECTED, index_name
from shards.manifest import parse_manifest


class Before:
    """The dataset in `output`; each question has an empty answer if there is none.

    Raises UserError for a damaged dataset.json and for one of another format version.
    """

    def __init__(self, output: Output):
        self.output = output
        self.manifest: dict[str, Any] | None = None
        if MANIFEST in output.names():
            with output.open(MANIFEST) as f:
                self.manifest = parse_manifest(f.read(), output.url)

    def count(self, split: str, what: str) -> int:
        """Samples or shards of a split."""
        return self.manifest["splits"].get(split, {what: 0})[what] if self.manifest else 0

    def files(self) -> dict[str, Any]:
        """dataset.json's entries."""
        return dict(self.manifest["files"]) if self.manifest else {}

    def splits(self) -> dict[str, dict[str, int]]:
        """Samples and shards by split."""
        return {split: dict(counts) for split, counts in self.manifest["splits"].items()} if self.manifest else {}

    def rows(self, name: str) -> list[list[str]]:
        """Rows of a CSV file without its header."""
        if name not in self.files():
            return []
        with self.output.open(name) as f:
            return list(csv.reader(io.StringIO(f.read().decode(), newline="")))[1:]

    def classes(self) -> list[tuple[str, int, str]]:
        """landmark_id, packed photos of split train, name; position = label."""
        return [(landmark, int(images), name) for _, landmark, images, name in self.rows(CLASSES)]

    def rejected(self) -> list[list[str]]:
        """id, split, reason."""
        return self.rows(REJECTED)

    def copy_array(self, name: str, to: BinaryIO) -> None:
        """Append the body of an .npy file to `to`."""
        if name in self.files():
            with self.output.open(name) as f:
                np.lib.format.read_magic(f)
                np.lib.format.read_array_header_1_0(f)
                shutil.copyfileobj(f, to)

    def keys(self, split: str) -> np.ndarray:
        """Ids of the split's samples, bytes (N,), in no order that matters."""
        name = index_name(split)
        if name not in self.files():
            return np.empty(0, "S1")
        with self.output.open(name) as f:
            return np.load(io.BytesIO(f.read()))["key"]
