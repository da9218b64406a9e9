"""Pack photos with LitData's optimize as its ImageNet benchmark does: JPEGs as they are, in chunks of 64 MB.

Source of the settings: benchmarks/litdata/optimize_imagenet.py of Lightning-AI/litData.
"""
from typing import Any

from litdata import optimize
from PIL import Image
from runner import parse_args, read_list, timed


def sample(path: str) -> tuple[Any, int]:
    return Image.open(path), 1


if __name__ == "__main__":
    args = parse_args(__doc__)
    photos = [str(path) for path in read_list(args.list)]
    timed(lambda: optimize(sample, photos, str(args.out), chunk_bytes="64MB", num_workers=args.workers))
