"""No loader, but a part of this project's: order, read and crc32 of the samples; nothing is decoded."""
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from loader_runner import WARM, parse_args, rate

from loader import Loader
from loader.read import collect
from shards import Dataset

if __name__ == "__main__":
    args = parse_args(__doc__)
    loader = Loader(Dataset(args.form / "dataset", "train"), batch_size=args.batch_size, size=args.size,
                    num_threads=args.workers)
    with ThreadPoolExecutor(args.workers) as pool:
        batches = (collect(found)[0] for *_, found in loader.reads(pool))
        list(islice(batches, WARM))
        print(json.dumps(rate(batches, args.seconds)))
