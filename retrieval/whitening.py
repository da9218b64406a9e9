"""PCA of embeddings, whitened or not: an affine map that is fitted to some vectors and applied to others."""
import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arcshard.console import UserError, progress
from arcshard.files import whole_file
from arcshard.untrusted import read_array
from retrieval.state import Matrix, unit
from retrieval.store import Embeddings

CHUNK = 8192  # rows at a time: 134 MB at 2,048 dimensions in float64
NONE = 1e-10  # share of the greatest variance below which a direction is taken for one in which nothing varies


@dataclass(frozen=True)
class Whitening:
    """x -> projection x + bias, scaled to length 1: d dimensions for D, that of greatest variance first."""
    projection: NDArray[np.float64]
    """(d, D)."""
    bias: NDArray[np.float64]
    """(d,): minus the projected mean."""

    def apply(self, vectors: NDArray[np.floating]) -> Matrix:
        """Rows (N, D), which may be memory-mapped -> float32 (N, d) of length 1. Raises ValueError for another D."""
        if vectors.shape[1] != self.projection.shape[1]:
            raise ValueError(f"the whitening is for {self.projection.shape[1]} dimensions, but these embeddings have "
                             f"{vectors.shape[1]}: fit it to embeddings of the same run")
        found = np.empty((len(vectors), len(self.bias)), np.float32)
        for rows in parts_of(len(vectors), "whiten"):
            found[rows] = unit(vectors[rows].astype(np.float64) @ self.projection.T + self.bias)
        return found

    def first(self, dim: int | None) -> "Whitening":
        """The first dimensions of the result alone; None: all. Raises ValueError if it has fewer."""
        if dim is not None and not 1 <= dim <= len(self.bias):
            raise ValueError(f"dim is {dim}, but the embeddings that PCA saw vary in {len(self.bias)} dimensions only: "
                             f"give 1 to {len(self.bias)}")
        return Whitening(self.projection[:dim], self.bias[:dim])

    def save(self, path: Path) -> None:
        """Write an .npy file, float64 (d, D + 1): the projection, with the bias as its last column."""
        with whole_file(path) as f:
            np.save(f, np.column_stack([self.projection, self.bias]), allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> "Whitening":
        """Read what `save` wrote. Raises UserError for another file."""
        try:
            saved = read_array(path, np.dtype(np.float64), ndim=2)
        except OSError as error:
            raise UserError(f"the whitening {path} cannot be read ({error.strerror}): check the path") from None
        except ValueError as error:
            raise UserError(f"{path} {error}: give a whitening that python -m retrieval whiten wrote") from None
        if not len(saved) or saved.shape[1] < 2 or not np.isfinite(saved).all():
            raise UserError(f"{path} is no whitening: it is empty or holds NaN or infinity; write it again with "
                            "python -m retrieval whiten")
        return cls(saved[:, :-1], saved[:, -1])


def parts_of(rows: int, what: str) -> Iterator[slice]:
    """So many rows in parts, with progress where that takes more than two seconds."""
    parts = [slice(start, start + CHUNK) for start in range(0, rows, CHUNK)]
    shown: Iterator[slice] = progress(parts, unit="parts", what=what)
    return shown


def fit_whitening(vectors: NDArray[np.floating], dim: int | None = None, power: float = 1.0) -> Whitening:
    """PCA of rows (N, D), N at least 2; each dimension divided by its standard deviation to `power`.

    power 1 whitens, 0 only rotates and cuts off (PCA), 0.5 lies between. Jégou and Chum 2012, "Negative evidences and
    co-occurrences in image retrieval: the benefit of PCA and whitening". A dimension's sign is that which makes its
    largest coefficient positive, so that equal vectors give equal maps. faiss.PCAMatrix instead needs all rows in
    memory, and learns from 1,000 × D of them at most. Raises ValueError for fewer rows, and as `first` does.
    """
    if len(vectors) < 2:
        raise ValueError(f"PCA has {len(vectors)} embeddings to learn from: give at least 2, better ten times as many "
                         "as they have dimensions")
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    for part in parts_of(len(vectors), "learn the whitening"):
        centered = vectors[part] - mean
        covariance += centered.T @ centered / len(vectors)
    variance, directions = np.linalg.eigh(covariance)  # ascending; a direction is a column
    variance, rows = variance[::-1], directions.T[::-1]
    varies = variance > NONE * max(variance[0], np.finfo(np.float64).tiny)
    variance, rows = variance[varies], rows[varies]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
    projection = rows * np.sign(largest) / variance[:, None] ** (power / 2)
    return Whitening(projection, -projection @ mean).first(dim)


# The command whiten of `python -m retrieval`.

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, required=True, help="embeddings to learn from, best of a train split")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npy")
    parser.add_argument("--dim", type=int, help="components to keep (default: all)")
    parser.add_argument("--power", type=float, default=1.0,
                        help="of the standard deviation that each component is divided by; 0: rotate only (default: 1)")


def whiten(args: argparse.Namespace) -> None:
    """Write a whitening. Raises UserError for a store that is none or too small."""
    if args.out.suffix != ".npy":
        raise UserError(f"--out is {args.out}: give a file that ends in .npy")
    vectors = Embeddings.load(args.store).vectors
    try:
        found = fit_whitening(vectors, args.dim, args.power)
    except ValueError as error:
        raise UserError(f"{args.store}: {error}") from error
    args.out.parent.mkdir(parents=True, exist_ok=True)
    found.save(args.out)
    print(f"{args.out}: {len(found.bias)} of {vectors.shape[1]} dimensions, learned from {len(vectors):,} embeddings")
