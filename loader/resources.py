"""What a loader runs on."""
import os
from dataclasses import dataclass

from loader.mixture import Mixture
from shards import Dataset

HW_DECODER_LOAD = 0.65  # DALI's default: 0.90: 2 % more images/s, twice the longest wait (NVIDIA/DALI PR 6366)
LOOKED_AT = 65_536  # rows whose largest photo stands for all: packing shuffled them


@dataclass(frozen=True)
class Resources:
    """What a graph runs on. Nothing here changes the images, the decoders' rounding apart."""

    device: str
    """"cpu" or "gpu"."""
    batch_size: int
    """Most samples a batch."""
    num_threads: int
    """DALI's own."""
    hw_decoder_load: float = HW_DECODER_LOAD
    """Share of each batch that the GPU's JPEG engine decodes, where it has one; its cores decode the rest."""
    largest_photo: tuple[int, int] = (0, 0)
    """Width and height in pixels that the JPEG engine reserves memory for at once; a larger one makes it grow."""
    device_id: int | None = None
    """The GPU; None for the CPU, and to serialize the GPU graph where there is no GPU."""


def share_of_cores() -> int:
    """Cores that this process may use, shared evenly with the other ranks of its node (torchrun's variable)."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def largest_photo(dataset: Dataset | Mixture) -> tuple[int, int]:
    """Greatest width and greatest height among the first 65,536 photos, pixels."""
    datasets = dataset.datasets if isinstance(dataset, Mixture) else [dataset]
    rows = [d.index[:LOOKED_AT] for d in datasets]
    return max(int(r["width"].max()) for r in rows), max(int(r["height"].max()) for r in rows)
