"""Encoded bytes and crop boxes -> uint8 images of one size: the DALI graph, and what the CPU path does after it."""
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from arcshard.console import UserError
from loader.augment import View
from loader.mixture import Mixture
from loader.plan import Plan
from shards import CorruptSample, Dataset
from shards.format import key_text
from shards.jpeg import NotNormal, check_decodes, frame_size

try:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.backend import ReleaseUnusedMemory  # type: ignore[attr-defined]  # its stubs lack it
except ModuleNotFoundError:
    raise UserError("loading photos needs NVIDIA DALI, which is missing: pip install 'arcshard[cuda13]', or "
                    "'arcshard[cuda12]' for drivers older than 580; both run without a GPU, too") from None

# DALI's default, 0.65, leaves a third of the Huffman decoding to CPU cores, which here also read, check and plan. DALI
# went back to it from 0.9 although that gave 2 % more images/s, since the longest decode of a batch of 256 took 73 ms
# instead of 31 (NVIDIA/DALI PR 6366). MLPerf's ResNet-50 on H100 used 0.99 (mlcommons/training_results_v3.1).
HW_DECODER_LOAD = 0.9
LOOKED_AT = 65_536  # rows whose largest photo represents all: packing shuffled them
# Bytes that a pipeline may reserve on the GPU, a fortieth of an H100's memory; training and evaluation may each have a
# pipeline. nvImageCodec reserves about 3 bytes a pixel (4:4:4) for the engine's share of a batch, counted here as the
# whole batch, as tuning changes the share. That is photos of 1,614×1,614 at batch 256; larger ones cost a reallocation.
RESERVED = 2 * 10**9
PREFETCH = 2  # batches in flight inside DALI
PART = 8  # images that a thread resizes at a time: a future for each would cost as much again
Spec = tuple[int, Any]
"""Dimensions and type of one input of a sample."""


# What a pipeline runs on.


@dataclass(frozen=True)
class Resources:
    """What a pipeline runs on. Images depend on it only in the decoders' rounding and the chroma of view.jpeg."""

    device: str
    """"cpu" or "gpu"."""
    batch_size: int
    """Largest number of samples in a batch."""
    num_threads: int
    """Threads of DALI."""
    hw_decoder_load: float = HW_DECODER_LOAD
    """Share of each batch that the GPU's JPEG engine decodes, if it has one; of the rest, CPU threads decode the
    Huffman code and the GPU's cores do what follows."""
    largest_photo: tuple[int, int] = (0, 0)
    """Width and height in pixels for which the JPEG engine reserves memory at once; a larger area makes it grow."""
    device_id: int | None = None
    """The GPU; None for the CPU, and for serializing the GPU graph where there is no GPU."""


def share_of_cores() -> int:
    """Cores that this process may use, shared evenly with the other ranks of its node (torchrun's variable)."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def largest_photo(dataset: Dataset | Mixture, batch_size: int) -> tuple[int, int]:
    """Width and height in pixels of the photo with the largest area among the first 65,536 of each dataset.

    Both are scaled down if a batch of such photos would take more than RESERVED bytes.
    """
    datasets = dataset.datasets if isinstance(dataset, Mixture) else [dataset]
    rows = np.concatenate([d.index[:LOOKED_AT][["width", "height"]] for d in datasets])
    areas = rows["width"].astype(np.int64) * rows["height"]
    width, height = (int(side) for side in rows[areas.argmax()])
    scale = min(1.0, math.sqrt(RESERVED / (3 * batch_size * width * height)))
    return int(scale * width), int(scale * height)


# Decoded images of planned batches.


def decode(planned: Iterator[tuple[Plan, list[Any]]], resources: Resources, pool: Executor, view: View,
           dataset: Dataset | Mixture) -> Iterator[tuple[Plan, torch.Tensor]]:
    """Plans with bytes -> plans with images on the device, uint8 (n, S, S, 3), in order; S is plan.size.

    Raises CorruptSample, naming one of the dataset's, for bytes that have the right checksum and are no such photo.
    """
    in_flight: deque[tuple[Plan, tuple[Any, ...]]] = deque()  # also keeps alive what DALI reads without a copy

    def source() -> tuple[Any, ...]:
        plan, data = next(planned)
        in_flight.append((plan, inputs(plan, data, input_specs(resources.device, view))))
        return in_flight[-1][1]

    pipeline = build_pipeline(source, resources, view)
    pipeline.build()
    if resources.device == "cpu":
        yield from _resize_ahead(_with_plans(pipeline, None, in_flight, dataset), pool)
        return
    try:  # ordered on torch's current stream, passed on without a copy
        for plan, images in _with_plans(pipeline, torch.cuda.current_stream(), in_flight, dataset):
            yield plan, torch.from_dlpack(images.as_tensor())
    finally:
        del pipeline
        ReleaseUnusedMemory()  # DALI would keep the memory of an evaluation, which training can use


def _with_plans(pipeline: Any, stream: Any, in_flight: deque[tuple[Plan, Any]], dataset: Dataset | Mixture
                ) -> Iterator[tuple[Plan, Any]]:
    """DALI's output of each batch with its plan, until the source ends."""
    while True:
        try:
            output, = pipeline.run(stream)
        except StopIteration:
            return
        except RuntimeError:
            for plan, (data, *_) in in_flight:
                check_decodable(plan, data, dataset)
            raise
        yield in_flight.popleft()[0], output


def check_decodable(plan: Plan, data: list[NDArray[np.uint8]], dataset: Dataset | Mixture) -> None:
    """Raise CorruptSample for bytes that are no JPEG of the size in the index, though its checksum is theirs."""
    rows = dataset.index[plan.ids]
    for width, height, key, jpeg in zip(rows["width"], rows["height"], rows["key"], data):
        try:
            check_decodes(jpeg.tobytes())
            right = frame_size(jpeg.tobytes()) == (width, height)
        except NotNormal:
            right = False
        if not right:
            raise CorruptSample(f"sample {key_text(key)} of split {dataset.split} is not the photo of {width} × "
                                f"{height} pixels that its index has: run python -m shards verify {dataset.path}")


# The DALI graph.


def build_pipeline(source: Callable[[], Any], resources: Resources, view: View) -> Any:
    """The DALI pipeline for `resources.device`, not yet built.

    GPU: decode of the box on the hardware engine; linear resize without antialiasing, or warp; flip; JPEG. Output uint8
    HWC of one size. CPU: only the decode of the box; OpenCV does the rest, since DALI's CPU resize costs more than the
    decode (benchmarks/throughput.py times both).

    Args:
        source: called once for each batch, returns `inputs`; StopIteration ends the stream.
        view: decides which operations the graph has, since unused ones would cost time.
    """
    device, specs = resources.device, input_specs(resources.device, view)

    @pipeline_def(batch_size=resources.batch_size, num_threads=resources.num_threads, device_id=resources.device_id,
                  prefetch_queue_depth=PREFETCH)
    def graph() -> Any:
        outputs = fn.external_source(source, num_outputs=len(specs), batch=True, no_copy=True,
                                     ndim=[ndim for ndim, _ in specs.values()],
                                     dtype=[dtype for _, dtype in specs.values()])
        given = dict(zip(specs, outputs))
        # Packing applied the EXIF orientation, and the boxes are in those pixels. Without fancy upsampling the GPU
        # repeats chroma samples; the CPU always interpolates them. Before CUDA 13.3 nvJPEG errs at the edges of a box.
        crops = fn.decoders.image_slice(given["encoded"], start=given["start"], shape=given["shape"],
                                        adjust_orientation=False, jpeg_fancy_upsampling=True,
                                        device="mixed" if device == "gpu" else "cpu",
                                        hw_decoder_load=resources.hw_decoder_load,
                                        preallocate_width_hint=resources.largest_photo[0],
                                        preallocate_height_hint=resources.largest_photo[1])
        return crops if device == "cpu" else finish_on_gpu(crops, given)

    return graph()


def finish_on_gpu(crops: Any, given: dict[str, Any]) -> Any:
    """What `finish_on_cpu` does, as nodes of the graph. (On a GPU, JPEG repeats chroma: tests/test_gpu.py.)"""
    if "matrix" in given:
        images = fn.warp_affine(crops, matrix=given["matrix"], size=given["size"], inverse_map=True, fill_value=0,
                                interp_type=types.INTERP_LINEAR)
    else:
        images = fn.resize(crops, size=given["size"], interp_type=types.INTERP_LINEAR, antialias=False)
    images = fn.flip(images, horizontal=given["flip"])
    if "quality" not in given:
        return images
    compressed = fn.jpeg_compression_distortion(images, quality=given["quality"])
    if "compress" not in given:
        return compressed
    return given["compress"] * compressed + (given["compress"] ^ True) * images


def input_specs(device: str, view: View) -> dict[str, Spec]:
    """The graph's inputs by name: bytes, the box's x y and width height; on the GPU also those of later nodes."""
    specs = {"encoded": (1, types.UINT8), "start": (1, types.INT32), "shape": (1, types.INT32)}
    if device == "gpu":
        specs |= {"size": (1, types.FLOAT), "flip": (0, types.INT32)}
        specs |= {"matrix": (2, types.FLOAT)} if view.warps else {}
        specs |= {"quality": (0, types.INT32)} if view.jpeg else {}
        specs |= {"compress": (0, types.BOOL)} if view.jpeg and view.jpeg_chance < 1 else {}
    return specs


def inputs(plan: Plan, data: list[Any], names: Iterable[str]) -> tuple[Any, ...]:
    """A batch of the named inputs: an array for each, but a list of arrays for the bytes, which differ in length.

    A batch of 256 costs 0.2 ms as an array and 1.2 ms as a list of arrays.
    """
    known = {"start": plan.boxes[:, :2], "shape": plan.boxes[:, 2:], "flip": plan.flips.astype(np.int32),
             "size": np.full((len(data), 2), plan.size, np.float32), "matrix": plan.matrices,
             "quality": np.maximum(plan.qualities, 1), "compress": plan.qualities > 0}  # DALI has no quality 0
    return tuple(data if name == "encoded" else np.ascontiguousarray(known[name]) for name in names)


# What the CPU path does after the decode.


def _resize_ahead(crops_of_plans: Iterator[tuple[Plan, Any]], pool: Executor
                  ) -> Iterator[tuple[Plan, torch.Tensor]]:
    """Resize one batch ahead: while the consumer works on a batch, the next is resized and DALI decodes a third."""
    ahead = None
    for plan, crops in crops_of_plans:
        previous, ahead = ahead, (plan, *_resize(crops, plan, pool))
        if previous:
            yield _finished(*previous)
    if ahead:
        yield _finished(*ahead)


def _finished(plan: Plan, images: torch.Tensor, futures: list[Future[None]]) -> tuple[Plan, torch.Tensor]:
    for future in futures:
        future.result()
    return plan, images


def _resize(crops: Any, plan: Plan, pool: Executor) -> tuple[torch.Tensor, list[Future[None]]]:
    """Start to finish DALI's crops (uint8 HWC); returns the images, valid once the futures are done."""
    images = np.empty((len(crops), plan.size, plan.size, 3), np.uint8)

    def finish(part: range) -> None:
        for i in part:
            finish_on_cpu(np.asarray(crops[i]), plan, i, images[i])

    parts = (range(len(crops))[start:start + PART] for start in range(0, len(crops), PART))
    return torch.from_numpy(images), [pool.submit(finish, part) for part in parts]


def finish_on_cpu(crop: NDArray[np.uint8], plan: Plan, i: int, image: NDArray[np.uint8]) -> None:
    """Resize or warp the crop (h, w, 3) into image (S, S, 3), flip it, compress it."""
    side = (plan.size, plan.size)
    if plan.matrices is None:
        cv2.resize(crop, side, dst=image, interpolation=cv2.INTER_LINEAR)
    else:
        cv2.warpAffine(crop, _between_centers(plan.matrices[i]), side, dst=image,
                       flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    if plan.flips[i]:
        cv2.flip(image, 1, dst=image)
    if plan.qualities[i]:
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(plan.qualities[i])])
        # Like DALI's kernel, which repeats chroma over 2 x 2 pixels instead of interpolating it.
        image[:] = simplejpeg.decode_jpeg(encoded, fastupsample=True)


def _between_centers(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same map for OpenCV, where the center of the first pixel is the point (0, 0) instead of (0.5, 0.5)."""
    linear, offset = matrix[:, :2].astype(np.float64), matrix[:, 2]
    return np.column_stack([linear, linear.sum(1) / 2 + offset - 0.5])
