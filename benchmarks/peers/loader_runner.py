"""What the runners of loaders share: their arguments, one check of what they hand out, one clock.

The clock starts when WARM batches have been taken, so that imports, compilers and first reads are outside, and stops
with the batch that ends --seconds, or the loader's first epoch: no runner pays for the start of a second one.
"""
import argparse
import json
import random
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

WARM = 8  # batches
AREA, ASPECT = (0.1, 1.0), (3 / 4, 4 / 3)  # of the random crops; flips are by the toss of a coin


def parse_args(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", type=Path, required=True, help="folder of the photos in all packed forms")
    parser.add_argument("--size", type=int, default=224, help="side of the images, pixels (default: 224)")
    parser.add_argument("--batch-size", type=int, default=64, help="default: 64")
    parser.add_argument("--workers", type=int, default=2, help="threads or processes (default: 2)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of measuring (default: 3)")
    parser.add_argument("--no-antialias", action="store_true", help="of dali_loader.py")
    return parser.parse_args()


def photos(form: Path) -> list[Path]:
    return sorted((form / "photos").rglob("*.jpg"))


def training_transform(args: argparse.Namespace, *last: Any) -> Any:
    """torchvision's random resized crop and flip, bilinear, then `last`."""
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomResizedCrop(args.size, scale=AREA, ratio=ASPECT), v2.RandomHorizontalFlip(), *last])


def shuffled(items: list[Any]) -> Iterator[Any]:
    """All of them in random order, over and over."""
    while True:
        yield from random.sample(items, len(items))


def measure(batches: Iterable[Any], args: argparse.Namespace) -> None:
    """Take images (n, …) from batches, time them, and print one JSON object: images_per_s and images."""
    source = iter(batches)
    for images in islice(source, WARM):
        check(images, args)
    print(json.dumps(rate(source, args.seconds)), flush=True)


def rate(source: Iterator[Any], seconds: float) -> dict[str, float]:
    count, began = 0, time.perf_counter()
    taken = 0.0
    for images in source:
        count, taken = count + len(images), time.perf_counter() - began
        if taken >= seconds:
            break
    return {"images_per_s": count / taken, "images": count}


def check(images: Any, args: argparse.Namespace) -> None:
    """All hand out the same: uint8, NHWC or NCHW."""
    n, side = args.batch_size, args.size
    shape, dtype = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if dtype != "uint8" or shape not in ((n, side, side, 3), (n, 3, side, side)):
        raise ValueError(f"batches must be uint8 ({n}, {side}, {side}, 3), not {dtype} {shape}")
