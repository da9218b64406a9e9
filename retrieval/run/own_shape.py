"""Embed photos in their own shape and at any size, one by one: as published retrieval benchmarks do, not as squares."""
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from arcshard.console import UserError, progress
from arcshard.trees import files_below
from arcshard.untrusted import reason
from arcshard.urls import is_url
from preprocess.images.decode import Rejected, decode, shrink, to_rgb
from preprocess.images.formats import PHOTO_ENDINGS
from preprocess.images.normalize import upright
from retrieval import Embeddings
from retrieval.metrics import NO_LANDMARK
from retrieval.run.embed import fill_store, rows_of
from retrieval.run.model import RunModel, Tta, embed_views
from retrieval.store import Provenance
from shards import CacheConfig, Dataset, splits
from shards.format import MANIFEST
from shards.jpeg import read_header

Boxes = NDArray[np.float64]
PART = 256  # photos that a kill costs at most: some minutes on a CPU
OWN_SHAPE = "own shape"  # ends the name of the split in stores


@dataclass(frozen=True)
class Photos:
    """N photos of a folder or of a dataset's split."""
    keys: list[str]
    read: Callable[[int], bytes]
    """The file of a row; any format that can be packed."""
    labels: NDArray[np.int64]
    """(N,), -1 where none is known."""
    landmark_ids: list[str]
    """"" where none is known."""
    fingerprint: str
    """Changes with the photos; of a folder: with names and sizes of its files."""

    def take(self, rows: Sequence[int]) -> "Photos":
        """Those rows, in their order."""
        names = "\n".join([self.fingerprint, *(self.keys[row] for row in rows)])
        return Photos([self.keys[row] for row in rows], lambda i: self.read(rows[i]), self.labels[list(rows)],
                      [self.landmark_ids[row] for row in rows], hashlib.sha256(names.encode()).hexdigest())


def open_photos(where: str, cache: CacheConfig = CacheConfig()) -> Photos:
    """The photos of a folder, with any folders inside, or of DATASET:SPLIT; the split may be left out if it is one.

    Raises UserError for anything else.
    """
    base, _, split = where.rpartition(":")
    if has_manifest(base):
        return _of_dataset(Dataset(base, split, cache))
    if has_manifest(where):
        known = splits(where, cache)
        if len(known) > 1:
            raise UserError(f"{where} has the splits {', '.join(known)}: say which, as in {where}:{known[0]}")
        return _of_dataset(Dataset(where, known[0], cache))
    if is_url(where) or not Path(where).is_dir():
        raise UserError(f"{where} is neither a folder of photos nor a dataset: check the path")
    return _of_folder(Path(where))


def has_manifest(where: str) -> bool:
    """Whether it claims to be a dataset."""
    return is_url(where) or (Path(where) / MANIFEST).is_file()


def _of_dataset(dataset: Dataset) -> Photos:
    keys, labels, landmark_ids = rows_of(dataset)
    return Photos(keys, dataset.read, labels, landmark_ids, dataset.fingerprint)


def _of_folder(folder: Path) -> Photos:
    """A photo's key is its name without ending or, if two have the same, its path in the folder without ending."""
    files = sorted(name for name in files_below(folder) if PurePosixPath(name).suffix.lower() in PHOTO_ENDINGS)
    if not files:
        raise UserError(f"{folder} has no photos: check the path")
    keys = [PurePosixPath(name).stem for name in files]
    if len(set(keys)) < len(keys):
        keys = [str(PurePosixPath(name).with_suffix("")) for name in files]
    listed = "\n".join(f"{name} {(folder / name).stat().st_size}" for name in files)
    return Photos(keys, lambda row: (folder / files[row]).read_bytes(), np.full(len(keys), NO_LANDMARK),
                  [""] * len(keys), hashlib.sha256(listed.encode()).hexdigest())


def in_own_shape(model: RunModel, run: Path, tta: Tta) -> RunModel:
    """The run's network, to embed photos of any shape in those views. Raises UserError if it takes its size alone."""
    model, side = replace(model, tta=tta), multiple_of(model)
    long, short = (max(1, pixels // side) * side for pixels in (96, 64))
    try:
        embed(model, [np.zeros((long, short, 3), np.uint8)])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a timm model raises
        raise UserError(f"the network of {run} takes images of one shape only ({type(error).__name__}: "
                        f"{reason(error)}), but here photos keep theirs: give stores of embeddings") from error
    return model


def multiple_of(model: RunModel) -> int:
    """What the sides of images must be a multiple of, pixels: a transformer's patches; 1 for other networks."""
    patches: Any = getattr(model.embedder.backbone, "patch_embed", None)  # timm's attributes have no types
    return int(np.max(patches.patch_size)) if hasattr(patches, "patch_size") else 1


def embed_photos(model: RunModel, photos: Photos, path: Path, what: str, boxes: Boxes | None = None) -> Embeddings:
    """The store `path`, made anew unless it holds just these embeddings; continues where it was interrupted.

    what: for the progress bar and the store's split. boxes: (N, 4) left, top, right, bottom in pixels, to which each
    photo is cut first. Raises UserError for a photo that cannot be read, and as `fill_store` does.
    """
    fingerprint = photos.fingerprint if boxes is None else hashlib.sha256(
        photos.fingerprint.encode() + boxes.tobytes()).hexdigest()
    provenance = Provenance(model.fingerprint, fingerprint, f"{what}, {OWN_SHAPE}", model.tta.name, model.size)
    try:
        kept = Embeddings.load(path)
    except UserError:
        kept = None
    if kept and kept.provenance == provenance:
        return kept
    fill_store(path, provenance, len(photos.keys), lambda rows: embed_each(model, photos, rows, boxes, what),
               lambda: (photos.keys, photos.labels, photos.landmark_ids), part_rows=PART)
    return Embeddings.load(path)


def embed_each(model: RunModel, photos: Photos, rows: range, boxes: Boxes | None, what: str
               ) -> Iterator[NDArray[np.float32]]:
    """float32 (1, D) of length 1 of each row, with progress; threads decode ahead."""
    threads = joblib.Parallel(joblib.cpu_count(), backend="threading", return_as="generator")
    decoded = threads(joblib.delayed(_views)(photos, row, None if boxes is None else boxes[row], model)
                      for row in rows)
    for views in progress(decoded, total=len(rows), unit="photos", what=f"embed {what}"):
        yield embed(model, views)


def _views(photos: Photos, row: int, box: NDArray[np.float64] | None, model: RunModel) -> list[NDArray[np.uint8]]:
    try:
        return views_of_photo(photos.read(row), model.size, model.tta, box, multiple_of(model))
    except Rejected as why:
        raise UserError(f"the photo {photos.keys[row]} cannot be read ({why}): download it again, since all are needed"
                        ) from None


def views_of_photo(data: bytes, size: int, tta: Tta, box: NDArray[np.float64] | None = None, multiple: int = 1
                   ) -> list[NDArray[np.uint8]]:
    """uint8 (H, W, 3), RGB: the photo at most `size` pixels long, and at the scales of `tta` times that.

    box: left, top, right, bottom in pixels of the stored photo, to which it is cut first. multiple: of which the sides
    become the nearest multiples. A photo is scaled up only by a scale above 1, and to a multiple. Raises Rejected.
    """
    photo = decode(data, read_header(data), None)
    pixels = photo.pixels
    if box is not None:
        left, top, right, bottom = np.rint(box).astype(int).clip(0)
        pixels = pixels[top:bottom, left:right]
        if not pixels.size:
            raise Rejected(f"its box {box.tolist()} lies outside of its {photo.width} × {photo.height} pixels")
    pixels = to_rgb(upright(pixels, photo.orientation), photo.profile)
    height, width = pixels.shape[:2]
    longest = max(height, width)
    return [shrink(pixels, *(max(1, round(own * side / longest / multiple)) * multiple for own in (width, height)))
            for side in tta.sizes(min(size, longest))]


def embed(model: RunModel, views: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """float32 (1, D) of length 1 of one photo's views, uint8 (H, W, 3), RGB."""
    return embed_views(model.embedder, [torch.from_numpy(view)[None].to(model.device) for view in views],
                       model.tta.flip)
