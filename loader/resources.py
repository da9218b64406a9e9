"""What a loader runs on."""
import math
import os
from dataclasses import dataclass

import numpy as np

from loader.mixture import Mixture
from shards import Dataset

# DALI's own default, 0.65, leaves a third of the Huffman decoding to CPU cores, which here also read, check and plan.
# DALI went back to it from 0.9, though images/s were 2 % more, since the longest decode of a batch of 256 took 73 ms
# instead of 31 (NVIDIA/DALI PR 6366). MLPerf's ResNet-50 on H100 used 0.99 (mlcommons/training_results_v3.1).
HW_DECODER_LOAD = 0.9
LOOKED_AT = 65_536  # rows whose largest photo stands for all: packing shuffled them
# Bytes that a pipeline may reserve on the GPU, a fortieth of an H100's; training and evaluation may each have one.
# nvImageCodec reserves about 3 a pixel (4:4:4) for the engine's share of a batch, counted here as the whole batch, as
# tuning changes the share. That is photos of 1,614×1,614 at batch 256; larger ones cost a reallocation.
RESERVED = 2 * 10**9


@dataclass(frozen=True)
class Resources:
    """What a graph runs on. Nothing changes the images, the decoders' rounding and the chroma of view.jpeg apart."""

    device: str
    """"cpu" or "gpu"."""
    batch_size: int
    """Most samples a batch."""
    num_threads: int
    """DALI's own."""
    hw_decoder_load: float = HW_DECODER_LOAD
    """Share of each batch that the GPU's JPEG engine decodes, where it has one; of the rest CPU threads undo the
    Huffman code and its cores do what follows."""
    largest_photo: tuple[int, int] = (0, 0)
    """Width and height in pixels that the JPEG engine reserves memory for at once; a larger area makes it grow."""
    device_id: int | None = None
    """The GPU; None for the CPU, and to serialize the GPU graph where there is no GPU."""


def share_of_cores() -> int:
    """Cores that this process may use, shared evenly with the other ranks of its node (torchrun's variable)."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def largest_photo(dataset: Dataset | Mixture, batch_size: int) -> tuple[int, int]:
    """Width and height in pixels of the photo of the largest area among the first 65,536 of each dataset.

    Both are scaled down where a batch of such photos would take more than RESERVED.
    """
    datasets = dataset.datasets if isinstance(dataset, Mixture) else [dataset]
    rows = np.concatenate([d.index[:LOOKED_AT][["width", "height"]] for d in datasets])
    areas = rows["width"].astype(np.int64) * rows["height"]
    width, height = (int(side) for side in rows[areas.argmax()])
    scale = min(1.0, math.sqrt(RESERVED / (3 * batch_size * width * height)))
    return int(scale * width), int(scale * height)
