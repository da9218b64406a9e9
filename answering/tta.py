"""Test-time augmentation: one embedding of several views of a photo."""
import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from loader import Batch
from model import Embedder


@dataclass(frozen=True)
class Tta:
    """Which views are averaged: the photo at the size of training, and these."""
    flip: bool = False
    """Each view's mirror image as well."""
    scales: tuple[float, ...] = ()
    """The photo at these multiples of the size."""

    @property
    def name(self) -> str:
        """As `read_tta` takes it."""
        return ",".join([*(["flip"] if self.flip else []), *(f"{scale:g}" for scale in self.scales)]) or "none"

    def sizes(self, size: int) -> list[int]:
        """Sides of the views, pixels, mirror images apart."""
        return [size, *(round(size * scale) for scale in self.scales)]


def read_tta(text: str) -> Tta:
    """none, or flip and scales with commas between, as an argparse type."""
    words = [word for word in text.split(",") if word != "none"]
    try:
        scales = tuple(float(word) for word in words if word != "flip")
    except ValueError:
        scales = (0.0,)
    if not all(0.1 <= scale <= 4 for scale in scales):
        raise argparse.ArgumentTypeError("must be none, or flip and scales of 0.1 to 4, as in flip,0.8,1.25; "
                                         f"got {text}")
    return Tta("flip" in words, scales)


@torch.inference_mode()
def embed_views(embedder: Embedder, views: Sequence[Batch], flip: bool) -> NDArray[np.float32]:
    """float32 (n, D) at length 1: the sum over views v of e_v / |e_v|, scaled to length 1.

    views: the same n photos at different sizes. flip: their mirror images count as views too.
    """
    total = torch.zeros((), device=views[0].images.device)
    for batch in views:
        for images in (batch.images, *([batch.images.flip(2)] if flip else [])):
            total = total + F.normalize(embedder(images, batch.jitter))
    return F.normalize(total).cpu().numpy()
