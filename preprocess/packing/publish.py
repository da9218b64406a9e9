"""Make a dataset of kept shards: write the files that bind them, name everything, dataset.json last.

    prepare   tables and the new dataset.json are complete in the work folder, publish.json lists the renames
    finish    the renames, then dataset.json, then the work folder goes

A kill during prepare leaves what was there before; after it, finish() ends the work, whoever calls it.
"""
import json
import shutil
from pathlib import Path
from typing import Any

from arcshard.console import UserError
from preprocess.packing.before import Before
from preprocess.packing.output import Output
from preprocess.packing.shard_plan import IDX, PART, TAR
from preprocess.packing.tables import Contents, Shard, write_tables
from shards.format import MANIFEST, UNFINISHED, shard_name
from shards.manifest import file_entry, manifest_text

PUBLISH = f"{UNFINISHED}/publish.json"
TABLES = f"{UNFINISHED}/tables"


class NothingPacked(UserError):
    """Not one photo could be packed."""


def kept_shard(output: Output, split: str, name: str) -> Shard:
    """The shard that a finished task kept under `name`."""
    with output.open(f"{UNFINISHED}/{name}/{PART}") as f:
        return Shard(split, name, json.loads(f.read()))


def prepare(output: Output, shards: list[Shard], contents: Contents, before: Before, packing: dict[str, Any]) -> None:
    """Write all that finish() needs. `shards` are in order within their split.

    before: what they are added to. packing: the options, for dataset.json. Raises NothingPacked, after removing
    the work folder, if no photo was packed.
    """
    filled = _filled(shards)
    if not filled:
        output.remove_work()  # the rejects too may have another cause the next time
        _refuse(shards)
    tables = output.local_work() / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    tables.mkdir()
    write_tables(tables, filled, shards, contents, before)
    moves = {path.name: f"{TABLES}/{path.name}" for path in sorted(tables.iterdir())}
    text = _manifest(tables, filled, len(contents.landmark_ids), before, packing)
    for name, source in moves.items():
        output.put(tables / name, source)
    for name, shard in _numbered(filled, before):
        moves |= {f"{name}.tar": f"{UNFINISHED}/{shard.name}/{TAR}",
                  f"{name}.idx": f"{UNFINISHED}/{shard.name}/{IDX}"}
    output.write(PUBLISH, json.dumps({"moves": moves, "manifest": text}).encode())


def finish(output: Output) -> None:
    """Do what prepare() wrote down, if it did and nobody has finished it."""
    if "publish.json" not in output.names(UNFINISHED):
        return
    with output.open(PUBLISH) as f:
        plan = json.loads(f.read())
    output.remove(MANIFEST)  # of the dataset that is added to: between two states it is none
    for name, source in plan["moves"].items():
        output.move(source, name)
    output.write(MANIFEST, plan["manifest"].encode())
    output.remove_work()


def _filled(shards: list[Shard]) -> dict[str, list[Shard]]:
    """Shards that hold a sample, by split; an empty tar would stop DALI's reader."""
    filled: dict[str, list[Shard]] = {}
    for shard in shards:
        if shard.part["samples"]:
            filled.setdefault(shard.split, []).append(shard)
    return dict(sorted(filled.items()))


def _refuse(shards: list[Shard]) -> None:
    key, reason = next((key, reason) for shard in shards for key, reason in shard.part["rejected"].items())
    count = sum(len(shard.part["rejected"]) for shard in shards)
    raise NothingPacked(f"a dataset needs at least one photo, but all {count:,} were rejected (the first, {key}: "
                        f"{reason}): check --images")


def _numbered(filled: dict[str, list[Shard]], before: Before) -> list[tuple[str, Shard]]:
    """The name in the dataset of each shard that holds a sample."""
    return [(shard_name(split, number), shard) for split, of_split in filled.items()
            for number, shard in enumerate(of_split, start=before.count(split, "shards"))]


def _manifest(tables: Path, filled: dict[str, list[Shard]], num_classes: int, before: Before,
              packing: dict[str, Any]) -> str:
    """The text of the new dataset.json."""
    files, splits = before.files(), before.splits()
    files |= {path.name: file_entry(path) for path in tables.iterdir()}
    for name, shard in _numbered(filled, before):
        files |= {f"{name}.tar": shard.part["tar"], f"{name}.idx": shard.part["idx"]}
        counts = splits.setdefault(shard.split, {"samples": 0, "shards": 0})
        counts["samples"] += shard.part["samples"]
        counts["shards"] += 1
    return manifest_text(num_classes, splits, packing, files)
