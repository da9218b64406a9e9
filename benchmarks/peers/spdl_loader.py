"""SPDL's Pipeline on files: FFmpeg decodes, crops, scales and flips in YUV, before RGB, in threads.

Documentation: "Using filters for augmentation" (docs/source/io/augmentation.rst) and examples/image_dataloading.py of
facebookresearch/spdl.
"""
import random
from pathlib import Path
from typing import Any

import spdl.io
import torch
from loader_runner import AREA, ASPECT, measure, parse_args, photos, shuffled
from spdl.pipeline import PipelineBuilder
from torchvision.transforms import RandomResizedCrop

AHEAD = 2  # batches


def decode(path: Path, size: int) -> Any:
    packets = spdl.io.demux_image(str(path))
    seen = torch.empty(packets.height, packets.width, device="meta")  # a shape without pixels
    y, x, h, w = RandomResizedCrop.get_params(seen, list(AREA), list(ASPECT))
    flip = ",hflip" if random.getrandbits(1) else ""
    filters = f"crop={w}:{h}:{x}:{y},scale={size}:{size}:flags=bilinear{flip}"
    return spdl.io.decode_packets(packets, filter_desc=spdl.io.get_video_filter_desc(filter_desc=filters))


def together(frames: list[Any]) -> Any:
    return spdl.io.to_torch(spdl.io.convert_frames(frames))


if __name__ == "__main__":
    args = parse_args(__doc__)
    pipeline = (PipelineBuilder().add_source(shuffled(photos(args.form)))
                .pipe(lambda path: decode(path, args.size), concurrency=args.workers)
                .aggregate(args.batch_size, drop_last=True).pipe(together).add_sink(AHEAD)
                .build(num_threads=args.workers))
    with pipeline.auto_stop():
        measure(pipeline, args)
