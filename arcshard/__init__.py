"""Ground that every room stands on: commands' errors and progress, files that appear whole. Imports no room.

From here Python programs take `Predictor` (retrieval/run/predictor.py), which is imported once it is asked for.
"""
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

# `python -m ROOM` looks into the working directory first: a model.py or loader.py there would be imported for the room.
if sys.argv[:1] == ["-m"] and {"loader", "retrieval", "shards"} & {*sys.orig_argv}:
    sys.path.insert(0, str(Path(__file__).parents[1]))

LAZY = {"Predictor": "retrieval.run.predictor"}


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)
