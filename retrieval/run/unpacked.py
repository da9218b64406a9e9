"""Photos that are in no dataset: brought into the normal form of packing in memory, and embedded."""
import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from arcshard.console import UserError, progress
from arcshard.files import report_full_disk
from arcshard.urls import is_url, read_object
from loader.frames import frame
from loader.pipeline import share_of_cores
from preprocess.images.decode import Rejected
from preprocess.images.formats import MAX_PIXELS
from preprocess.images.normalize import normalize
from retrieval.run.embed import BATCH
from retrieval.run.model import RunModel, embed_views

Photo = str | Path | bytes | Image.Image | NDArray[np.uint8]
"""Path, URL of fsspec, an image file's bytes, Pillow's image, or pixels (H, W, 3) in RGB."""
Views = list[NDArray[np.uint8]]
AHEAD = 2 * BATCH  # photos that are being read or wait for the network, 0.1 MB each


class UnpackedPhotos:
    """Photos as packing would have packed them for a run. Args: packing: how its own were (dataset.json)."""

    def __init__(self, photos: Sequence[Photo], packing: dict[str, Any]):
        self.photos = photos
        # an adopted dataset does not know its options: the defaults
        self._normalize = partial(normalize, short_side=packing.get("short_side"), quality=packing.get("quality") or 90,
                                  max_pixels=packing.get("max_pixels") or MAX_PIXELS)

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, i: int) -> bytes:
        """Photo i as a JPEG in normal form. Raises Rejected with a short reason, and as `file_of` does.

        A full disk, where progressive JPEGs are recoded, is a DiskFull.
        """
        with report_full_disk(gettempdir()):
            return self._normalize(file_of(self.photos[i])).data


def file_of(photo: Photo) -> bytes:
    """The bytes of an image file; pixels become one without loss.

    Raises OSError or UserError for what cannot be read, and ValueError for an array that is no photo.
    """
    if isinstance(photo, bytes):
        return photo
    if isinstance(photo, str) and is_url(photo):
        if (data := read_object(photo)) is None:
            raise UserError(f"there is no {photo}: check the address")
        return data
    if isinstance(photo, str | Path):
        return Path(photo).read_bytes()
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
            raise ValueError(f"the photo is an array of {photo.dtype} {photo.shape}: give uint8 (height, width, 3)")
        photo = Image.fromarray(photo)
    encoded = io.BytesIO()
    photo.save(encoded, "PNG", compress_level=0, exif=photo.getexif())
    return encoded.getvalue()


def embed_photos(model: RunModel, photos: UnpackedPhotos, show: bool = True
                 ) -> tuple[NDArray[np.float32], list[str | None]]:
    """Embeddings (n, D) of length 1, zeros where a photo cannot be read; and the reasons why, None where it can.

    On the CPU the network sees the same pixels as if the photos had been packed. On a GPU a packed photo is decoded
    there, which rounds otherwise. Memory: the embeddings and AHEAD photos.
    """
    reasons: list[str | None] = []
    read: list[int] = []

    def readable(found: Iterator[Views | str]) -> Iterator[Views]:
        for i, views in enumerate(found):
            reasons.append(views if isinstance(views, str) else None)
            if not isinstance(views, str):
                read.append(i)
                yield views

    sizes, vectors = model.tta.sizes(model.size), []
    with progress(total=len(photos), unit="photos", what="embed", disable=not show) as bar:
        framed = readable(_framed(photos, model, sizes))
        while batch := list(islice(framed, BATCH)):
            vectors.append(_embedded(model, batch))
            bar.update(len(reasons) - bar.n)
    if not vectors:
        return np.zeros((len(photos), 0), np.float32), reasons
    known = np.concatenate(vectors)
    every = np.zeros((len(photos), known.shape[1]), np.float32)
    every[read] = known
    return every, reasons


def _framed(photos: UnpackedPhotos, model: RunModel, sizes: list[int]) -> Iterator[Views | str]:
    """Each photo's views, uint8 (S, S, 3) each, or why it cannot be read; threads read ahead."""
    def views(i: int) -> Views | str:
        try:
            jpeg = photos.read(i)
        except Rejected as error:
            return str(error)
        return [frame(jpeg, model.view, size) for size in sizes]

    if len(photos) == 1:  # threads would only cost
        yield views(0)
        return
    with ThreadPoolExecutor(share_of_cores()) as pool:
        yield from _in_turn(pool.submit(views, i) for i in range(len(photos)))


def _in_turn(started: Iterable[Future[Views | str]]) -> Iterator[Views | str]:
    """The results in their order, AHEAD of them in work."""
    pending: deque[Future[Views | str]] = deque()
    for future in started:
        pending.append(future)
        if len(pending) > AHEAD:
            yield pending.popleft().result()
    yield from (future.result() for future in pending)


def _embedded(model: RunModel, photos: Sequence[Views]) -> NDArray[np.float32]:
    views = [torch.from_numpy(np.stack(images)).to(model.device) for images in zip(*photos)]
    return embed_views(model.embedder, views, model.tta.flip, torch.ones(len(photos), 3, device=model.device))
