"""No loader, but the limit of one: DALI decodes the crops of a few batches that are read already, on all cores."""
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from loader_runner import WARM, parse_args, rate

from loader import Loader, View
from loader.pipeline import build_pipeline, input_specs, inputs
from shards import Dataset

BATCHES = 16

if __name__ == "__main__":
    args = parse_args(__doc__)
    loader = Loader(Dataset(args.form / "dataset", "train"), batch_size=args.batch_size, size=args.size,
                    num_threads=args.workers)
    with ThreadPoolExecutor(args.workers) as pool:
        read = [inputs(plan, data, input_specs("cpu", View()))
                for plan, data in islice(loader.planned(pool), BATCHES)]
    fed = itertools.cycle(read)
    pipeline = build_pipeline(lambda: next(fed), loader.resources(), View())
    pipeline.build()
    decoded = (pipeline.run()[0] for _ in itertools.count())
    list(islice(decoded, WARM))
    print(json.dumps(rate(decoded, args.seconds)))
