"""Pack photos with webdataset's ShardWriter: 1,000 a shard, the label as text beside each."""
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from runner import in_processes, parse_args, read_list, reader, timed
from webdataset import ShardWriter


def write(photos: Sequence[Path], out: Path, short_side: int | None, quality: int) -> None:
    read = reader(short_side, quality)
    with ShardWriter(f"{out}/%06d.tar", maxcount=1000, verbose=0) as writer:
        for photo in photos:
            writer.write({"__key__": photo.stem, "jpg": read(photo), "cls": 1})


if __name__ == "__main__":
    args = parse_args(__doc__)
    work = partial(write, short_side=args.short_side, quality=args.quality)
    timed(lambda: in_processes(work, read_list(args.list), args.out, args.workers))
