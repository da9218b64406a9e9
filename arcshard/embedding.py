"""Photos -> L2-normalised embeddings, batch by batch."""
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn


@torch.inference_mode()
def embed(embedder: nn.Module, batches: Iterable[Any]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings (n, D) of unit length and the samples' ids (n,), in the loader's order; leaves the module's mode."""
    training = embedder.training
    embedder.eval()
    vectors, ids = [], []
    for batch in batches:
        vectors.append(F.normalize(embedder(batch.images, batch.jitter)).cpu())
        ids.append(batch.ids)
    embedder.train(training)
    return torch.cat(vectors).numpy(), torch.cat(ids).numpy()
