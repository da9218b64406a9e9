"""What torchrun starts for test_answering_embedding.py: python -m retrieval, in parts of 16 rows, told as written."""
import os
from functools import partial

from answering import stores
from retrieval import __main__ as command
from retrieval.parts import Parts

write = Parts.write


def told(parts, number, vectors):
    print(f"rank {os.environ['RANK']}: part {number}\n", end="", flush=True)  # one write: two ranks share the pipe
    write(parts, number, vectors)


if __name__ == "__main__":
    Parts.write = told
    stores.write_split = partial(stores.write_split, part_rows=16)
    command.main()
