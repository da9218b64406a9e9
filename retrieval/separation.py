"""How far apart right and wrong neighbours are: what decides whether one threshold can tell them."""
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]


def own_and_other(queries: Vectors, labels: Labels, gallery: Vectors, gallery_labels: Labels,
                  chunk: int = 8192) -> tuple[Vectors, Vectors]:
    """Each query's greatest inner product with a gallery row of its label, and with one of another, float32 (Q,) each.

    -inf where there is no such row. queries (Q, D), gallery (N, D); labels (Q,) and (N,), -1 is no label and never
    equal. Memory: about 10 * Q * chunk bytes.
    """
    own, other = np.full((2, len(queries)), -np.inf, np.float32)
    for start in range(0, len(gallery), chunk):
        part = slice(start, start + chunk)
        products = queries @ gallery[part].T
        same = (labels[:, None] == gallery_labels[part]) & (labels >= 0)[:, None]
        own = np.maximum(own, products.max(1, where=same, initial=-np.inf))
        other = np.maximum(other, products.max(1, where=~same, initial=-np.inf))
    return own, other
