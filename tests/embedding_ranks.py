"""A rank of test_run_embed.py: python -m retrieval, in parts of 16 rows, each printed when written."""
import os
from functools import partial

from retrieval import __main__ as command
from retrieval.run import embed
from retrieval.store import Parts

write = Parts.write


def told(parts, number, vectors):
    print(f"rank {os.environ['RANK']}: part {number}", flush=True)
    write(parts, number, vectors)


if __name__ == "__main__":
    Parts.write = told
    embed.write_split = partial(embed.write_split, part_rows=16)
    command.main()
