"""Ground that every room stands on: commands' errors and progress, files that appear whole. Imports no room."""
import sys
from pathlib import Path

# `python -m ROOM` looks into the working directory first: a model.py or loader.py there would be imported for the room.
if sys.argv[:1] == ["-m"] and {"loader", "retrieval", "shards"} & {*sys.orig_argv}:
    sys.path.insert(0, str(Path(__file__).parents[1]))
