"""Embeddings of one split by one model, as one file: vectors, keys, labels, and what made them."""
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError
from arcshard.files import whole_file

FORMAT = "arcshard-embeddings-1"
NAMES = {"format", "vectors", "keys", "labels", "landmark_ids", "model", "dataset", "split"}


@dataclass(frozen=True)
class Embeddings:
    """N embeddings in the order of their split. Raises ValueError for rows unequal or twice, and vectors not finite."""
    vectors: NDArray[np.float32]
    """(N, D), rows of length 1."""
    keys: list[str]
    """N sample keys."""
    labels: NDArray[np.int64]
    """(N,), -1 for no landmark."""
    landmark_ids: list[str]
    """N landmark ids as the dataset names them, "" for none."""
    model: str
    """Fingerprint of the weights."""
    dataset: str
    """Fingerprint of the split's photos."""
    split: str

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32:
            raise ValueError("vectors must be a float32 matrix, got "
                             f"{self.vectors.dtype} of shape {self.vectors.shape}")
        rows = [len(self.vectors), len(self.keys), len(self.labels), len(self.landmark_ids)]
        if len(set(rows)) > 1:
            raise ValueError(f"vectors, keys, labels and landmark_ids must have one row a sample, got {rows}")
        commonest, times = Counter(self.keys).most_common(1)[0] if self.keys else ("", 0)
        if times > 1:
            raise ValueError(f"embeddings must have one row a photo, got {times} of {commonest}")
        broken = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(broken):
            raise ValueError(f"embeddings must be finite, got NaN or infinity in {len(broken)} of {rows[0]} "
                             f"rows, first {self.keys[broken[0]]}")

    def save(self, path: str | Path) -> None:
        """Write an .npz that appears whole; the same embeddings give the same bytes."""
        with whole_file(path) as f:
            np.savez(f, allow_pickle=False, format=np.array(FORMAT), vectors=self.vectors,
                     keys=_encode(self.keys), labels=self.labels.astype(np.int64),
                     landmark_ids=_encode(self.landmark_ids), model=np.array(self.model),
                     dataset=np.array(self.dataset), split=np.array(self.split))

    @classmethod
    def load(cls, path: str | Path) -> "Embeddings":
        """Read what `save` wrote. Raises UserError for a missing file and for anything else."""
        a = _read(Path(path))
        try:
            return cls(a["vectors"], _decode(a["keys"]), a["labels"], _decode(a["landmark_ids"]),
                       str(a["model"]), str(a["dataset"]), str(a["split"]))
        except ValueError as error:
            raise UserError(f"{path}: {error}: delete it and run evaluate.py again") from error


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"embeddings are read from a file, got {path}, which is none: run evaluate.py first")
    refusal = UserError(f"embeddings are read from a whole file of format {FORMAT}, got {path}, which is not "
                        "one: delete it and run evaluate.py again")
    if not zipfile.is_zipfile(path):
        raise refusal
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (ValueError, zipfile.BadZipFile) as error:  # a foreign archive, a member that fails its checksum
        raise refusal from error
    if arrays.keys() != NAMES or str(arrays["format"]) != FORMAT:
        raise refusal
    return arrays


def _encode(texts: list[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], np.bytes_)  # a quarter of the size of numpy's UTF-32


def _decode(texts: NDArray[np.bytes_]) -> list[str]:
    return [text.decode() for text in texts.tolist()]
