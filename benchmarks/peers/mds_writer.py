"""Pack photos with MosaicML Streaming's MDSWriter, as its documentation has it: no hashes, shards of 64 MiB."""
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from runner import in_processes, parse_args, read_list, reader, timed
from streaming import MDSWriter


def write(photos: Sequence[Path], out: Path, short_side: int | None, quality: int) -> None:
    read = reader(short_side, quality)
    with MDSWriter(columns={"jpg": "bytes", "label": "int"}, out=str(out)) as writer:
        for photo in photos:
            writer.write({"jpg": read(photo), "label": 1})


if __name__ == "__main__":
    args = parse_args(__doc__)
    work = partial(write, short_side=args.short_side, quality=args.quality)
    timed(lambda: in_processes(work, read_list(args.list), args.out, args.workers))
