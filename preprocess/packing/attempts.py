"""Count the beginnings of a task, so that a photo that kills its worker ends in a sentence, not in a circle."""
import uuid

from preprocess.packing.output import Output
from shards.format import UNFINISHED

ATTEMPTS = f"{UNFINISHED}/attempts"
MAX_ATTEMPTS = 3  # dask gives a task up at its fourth death, with an error that names no shard


def begin(output: Output, name: str) -> bool:
    """Note that task `name` begins; False if it began MAX_ATTEMPTS times before and never ended."""
    before = len(output.names(f"{ATTEMPTS}/{name}"))
    if before < MAX_ATTEMPTS:
        output.write(f"{ATTEMPTS}/{name}/{uuid.uuid4().hex}", b"-")
    return before < MAX_ATTEMPTS
