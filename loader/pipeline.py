"""Encoded bytes and crop boxes -> uint8 images of one size: the DALI graph, and what the CPU path does after it."""
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import cv2
import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types

from loader.plan import Plan

PREFETCH = 2  # batches in flight inside DALI
# Dimensions and type of each input of a sample: encoded bytes, crop's x y, its width height; on the GPU also
# the output's height width, and whether to flip. On the CPU the last two are no business of DALI's.
_CROP = [(1, types.UINT8), (1, types.INT32), (1, types.INT32)]
INPUTS = {"cpu": _CROP, "gpu": [*_CROP, (1, types.FLOAT), (0, types.INT32)]}


def build_pipeline(source: Callable[[], Any], device: str, batch_size: int, num_threads: int,
                   device_id: int | None) -> Any:
    """The graph for `device` "cpu" or "gpu", not yet built.

    GPU: decode of the crop on the hardware engine, linear resize without antialias, flip; uint8 HWC of one size.
    CPU: only the decode of the crop; OpenCV does the rest, since DALI's CPU resize costs more than the decode
    (benchmarks/throughput.py times both).

    Args:
        source: called once a batch, returns `inputs`; StopIteration ends the stream.
        device_id: None for the CPU, and to serialize the GPU graph where there is no GPU.
    """
    @pipeline_def(batch_size=batch_size, num_threads=num_threads, device_id=device_id,
                  prefetch_queue_depth=PREFETCH)
    def graph() -> Any:
        encoded, start, shape, *rest = fn.external_source(
            source, num_outputs=len(INPUTS[device]), batch=True, no_copy=True,
            ndim=[ndim for ndim, _ in INPUTS[device]], dtype=[dtype for _, dtype in INPUTS[device]])
        # Packing applied the EXIF orientation; the boxes are in those pixels.
        crops = fn.decoders.image_slice(encoded, start=start, shape=shape, adjust_orientation=False,
                                        device="mixed" if device == "gpu" else "cpu")
        if device == "cpu":
            return crops
        size, flip = rest
        images = fn.resize(crops, size=size, interp_type=types.INTERP_LINEAR, antialias=False)
        return fn.flip(images, horizontal=flip)

    return graph()


def decode(planned: Iterator[tuple[Plan, list[Any]]], *, device: str, batch_size: int, num_threads: int,
           pool: Executor) -> Iterator[tuple[Plan, torch.Tensor]]:
    """Turn plans with their samples' bytes into images on the device, uint8 (n, S, S, 3), in order; S: plan.size."""
    in_flight: deque[tuple[Plan, tuple[Any, ...]]] = deque()  # also keeps alive what DALI reads without a copy

    def source() -> tuple[Any, ...]:
        plan, data = next(planned)
        in_flight.append((plan, inputs(plan, data, device)))
        return in_flight[-1][1]

    device_id = torch.cuda.current_device() if device == "gpu" else None
    pipeline = build_pipeline(source, device, batch_size, num_threads, device_id)
    pipeline.build()
    if device == "gpu":  # ordered on torch's current stream, handed over without a copy
        for images in _outputs(pipeline, torch.cuda.current_stream()):
            yield in_flight.popleft()[0], torch.from_dlpack(images.as_tensor())
    else:
        crops_of_plans = ((in_flight.popleft()[0], crops) for crops in _outputs(pipeline, None))
        yield from _resize_ahead(crops_of_plans, pool)


def inputs(plan: Plan, data: list[Any], device: str) -> tuple[Any, ...]:
    """A batch in the order of INPUTS: for each input one list of arrays."""
    sizes = np.full((len(data), 2), plan.size, np.float32)
    inputs = data, list(plan.boxes[:, :2]), list(plan.boxes[:, 2:]), list(sizes), list(plan.flips.astype(np.int32))
    return inputs[:len(INPUTS[device])]


def _outputs(pipeline: Any, stream: Any) -> Iterator[Any]:
    """The one output of each of DALI's batches, until the source ends."""
    while True:
        try:
            output, = pipeline.run(stream)
        except StopIteration:
            return
        yield output


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
    """Start resizing and flipping DALI's crops (uint8 HWC): the images to be, and what to wait for."""
    size = plan.size
    images = np.empty((len(crops), size, size, 3), np.uint8)

    def finish(i: int) -> None:
        crop = np.asarray(crops[i])
        cv2.resize(crop, (size, size), dst=images[i], interpolation=cv2.INTER_LINEAR)
        if plan.flips[i]:
            cv2.flip(images[i], 1, dst=images[i])

    return torch.from_numpy(images), [pool.submit(finish, i) for i in range(len(crops))]
