"""This project's Loader with its default training view, on its own shards."""
from loader_runner import measure, parse_args

from arcshard.memory import keep_freed_memory
from loader import Loader
from shards import Dataset

if __name__ == "__main__":
    args = parse_args(__doc__)
    keep_freed_memory()  # as train.py does
    loader = Loader(Dataset(args.form / "dataset", "train"), batch_size=args.batch_size, size=args.size,
                    num_threads=args.workers)
    measure((batch.images for batch in loader), args)
