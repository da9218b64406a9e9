"""How much memory the loader takes, epoch after epoch: anonymous pages, so without the maps of shards and index."""
import argparse
from itertools import islice
from pathlib import Path
from typing import Any

from loaders_forms import ORIGINALS, make_form

from arcshard.console import progress
from arcshard.memory import keep_freed_memory
from loader import Loader
from loader.pipeline import PREFETCH
from shards import Dataset

EPOCHS, SIZE = 10, 224
BATCHES = PREFETCH + 2  # in flight: those in DALI, one that is resized, one that is handed out
REST = 100  # MB: DALI's threads, decoders and graph


def memory_report(args: argparse.Namespace) -> dict[str, Any]:
    """{"memory": MB grown at the end of each epoch, the bound, and what it is made of}."""
    keep_freed_memory()
    dataset = Dataset(make_form(ORIGINALS, args.work, args.photos, args.workers) / "dataset", "train")
    loader = Loader(dataset, batch_size=args.batch_size, size=SIZE, num_threads=args.workers)
    before = anonymous_mb()
    batches = iter(loader)
    grown = []
    for _ in progress(range(EPOCHS), unit="epoch", what="load"):
        for _ in islice(batches, -(-len(dataset) // args.batch_size)):
            pass
        grown.append(anonymous_mb() - before)
    batch = args.batch_size * largest_mb(dataset)
    return {"memory": {"samples": len(dataset), "grown_mb": grown, "batches": BATCHES, "batch_mb": batch,
                       "rest_mb": REST, "bound_mb": BATCHES * batch + REST}}


def largest_mb(dataset: Dataset) -> float:
    """The largest photo, decoded."""
    index = dataset.index
    return float((index["width"].astype(int) * index["height"]).max()) * 3 / 1e6


def anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("RssAnon:"))
