"""No packer, but the cheapest check that reads every byte: decode each photo gray, at 1/8 scale; nothing is written.

simplejpeg (libjpeg-turbo) in strict mode, where libjpeg's warnings are errors.
"""
from collections.abc import Sequence
from pathlib import Path

import simplejpeg
from runner import in_processes, parse_args, read_list, timed


def check(photos: Sequence[Path], out: Path) -> None:
    for photo in photos:
        simplejpeg.decode_jpeg(photo.read_bytes(), "GRAY", min_height=1, min_width=1, min_factor=8, strict=True)


if __name__ == "__main__":
    args = parse_args(__doc__)
    timed(lambda: in_processes(check, read_list(args.list), args.out, args.workers))
