"""A run's embeddings of a dataset's splits, computed once and kept below the run."""
import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from arcshard import distributed
from arcshard.console import UserError, check_least, progress
from arcshard.distributed import World
from arcshard.files import whole_file
from arcshard.memory import keep_freed_memory
from loader import Loader
from retrieval.run.model import RunModel, add_checkpoint, add_views, embed_views, load_model, views_of
from retrieval.search import nearest_over_ranks
from retrieval.store import DTYPES, ROWS, Embeddings, Parts, Provenance, in_parts, is_store, runs, share, write_store
from shards import Dataset, splits
from shards.format import key_text

GALLERY = "train"  # the split that queries are compared with
BATCH = 64
ALONE = World(0, 1, torch.device("cpu"))


def data_suffix(trained_on: str | None, gallery: Dataset) -> str:
    """What the names of a run's files about this dataset end in: "" if it was trained on it, else -NAME-<8 hex digits>.

    trained_on: fingerprint; None if it is not known, which gives "" too.
    """
    if trained_on in (None, gallery.fingerprint):
        return ""
    return f"-{os.path.basename(os.path.abspath(gallery.path))}-{gallery.fingerprint[:8]}"


def stores(run: Path, trained_on: str | None, gallery: Dataset) -> Path:
    """The folder of the run's stores of the gallery's dataset."""
    return run / "embeddings" / data_suffix(trained_on, gallery)[1:]


def store(folder: Path, split: str, variant: str = "") -> Path:
    """The store of a split among others. variant: of the RunModel."""
    return folder / (f"{split}.{variant}" if variant else split)


def embed_split(model: RunModel, dataset: Dataset, path: Path | None, keep: bool = True) -> Embeddings:
    """The split's embeddings, read from the store `path` if it has them, else computed and, with `keep`, stored."""
    if path and (kept := load_kept(path, model, dataset)):
        return kept
    if path and keep:
        write_split(model, dataset, path)
        return Embeddings.load(path)
    vectors = np.concatenate([*embed_rows(model, dataset, range(len(dataset)))])
    return Embeddings(vectors, *rows_of(dataset), provenance_of(model, dataset))


def write_split(model: RunModel, dataset: Dataset, path: Path, dtype: str = "float32", batch: int = BATCH,
                world: World = ALONE, part_rows: int = ROWS) -> None:
    """Write the store of a split as `fill_store` does."""
    def embed(rows: range) -> Iterator[NDArray[np.float32]]:
        return embed_rows(model, dataset, rows, batch, show=world.is_main)

    fill_store(path, provenance_of(model, dataset), len(dataset), embed, lambda: rows_of(dataset), dtype, world,
               part_rows)


def fill_store(path: Path, provenance: Provenance, count: int, embed: Callable[[range], Iterator[NDArray[np.float32]]],
               about: Callable[[], tuple[list[str], NDArray[np.int64], list[str]]], dtype: str = "float32",
               world: World = ALONE, part_rows: int = ROWS) -> None:
    """Write a store of `count` rows, each rank a contiguous share of the missing parts; all ranks must call.

    embed: rows -> their embeddings (n, D), some at a time. about: keys, labels and landmark ids of all rows. part_rows:
    rows of a part; a kill costs each rank fewer. Raises UserError for embeddings that are not finite, and if another
    process writes there.
    """
    path.mkdir(parents=True, exist_ok=True)
    parts = Parts(path, provenance, count, dtype, part_rows)
    with world.lock(path):
        if world.is_main:
            parts.begin()
        world.wait()
        own = share(parts.missing(), world.rank, world.size)
        world.wait()  # every rank has looked before one writes
        for first, last in runs(own):
            for number, part in enumerate(in_parts(embed(parts.rows_of(first, last)), part_rows), first):
                parts.write(number, part)
        world.wait()
        if world.is_main:
            try:
                write_store(path, parts.blocks(), *about(), provenance)
            except ValueError as error:
                parts.remove()
                raise UserError(f"{path}: {error}: choose another checkpoint of the run") from error
            parts.remove()
        world.wait()


def embed_rows(model: RunModel, dataset: Dataset, rows: range, batch: int = BATCH, show: bool = True
               ) -> Iterator[NDArray[np.float32]]:
    """Embeddings (n, D) of length 1 of rows of a split, a batch at a time."""
    views = [Loader(dataset, batch_size=batch, size=size, train=False, rows=rows, view=model.view,
                    device="gpu" if model.device.type == "cuda" else "cpu") for size in model.tta.sizes(model.size)]
    with progress(total=len(rows), unit="photos", what=f"embed {dataset.split}", disable=not show) as bar:
        for batches in zip(*views, strict=True):
            yield embed_views(model.embedder, [batch.images for batch in batches], model.tta.flip, batches[0].jitter)
            bar.update(len(batches[0].ids))


def provenance_of(model: RunModel, dataset: Dataset) -> Provenance:
    """What tells this model's embeddings of this split from all others."""
    return Provenance(model.fingerprint, dataset.fingerprint, dataset.split, model.tta.name, model.size)


def rows_of(dataset: Dataset) -> tuple[list[str], NDArray[np.int64], list[str]]:
    """Keys, labels and landmark ids of a split's samples."""
    labels = dataset.labels.astype(np.int64)
    return ([key_text(key) for key in dataset.index["key"]], labels,
            [dataset.landmark_ids[label] if label >= 0 else "" for label in labels])


def load_kept(path: Path, model: RunModel, dataset: Dataset) -> Embeddings | None:
    """What `path` holds, if it is whole and of these weights, photos, views and size; else None."""
    try:
        kept = Embeddings.load(path)
    except UserError:
        if is_store(path):
            print(f"{path} is damaged or of another version: it is made again", file=sys.stderr)
        return None
    if kept.provenance.size not in model.sizes_in_stores:
        return None
    kept = with_size(kept, model)
    fits = kept.vectors.shape == (len(dataset), model.embedder.dim) and np.array_equal(kept.labels, dataset.labels)
    return kept if fits and kept.provenance == provenance_of(model, dataset) else None


def with_size(kept: Embeddings, model: RunModel) -> Embeddings:
    """The same embeddings, with the model's size where older versions wrote them, which did not say it."""
    return kept if kept.provenance.size else replace(kept, provenance=replace(kept.provenance, size=model.size))


# The commands embed and neighbors of `python -m retrieval`; both run on all ranks.

def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="folders that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder, or s3://… (read through the run's cache)")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: all")
    parser.add_argument("--out", type=Path, help="folder for the stores (default: each run's own)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help=f"default: {DTYPES[0]}")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"photos at a time on each rank (default: {BATCH})")
    add_checkpoint(parser)
    add_views(parser)


def add_neighbors_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queries", type=Path, required=True, help="store of embeddings")
    parser.add_argument("--gallery", type=Path, required=True, help="store of embeddings")
    parser.add_argument("--k", type=int, default=10, help="neighbors a query (default: 10)")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")


def embed(args: argparse.Namespace) -> None:
    """Write a store for each run and split. Raises UserError for what cannot be embedded or kept apart."""
    check_least(args, 1, "batch")
    if args.out and len({folder.name for folder in args.run}) < len(args.run):
        raise UserError("two runs have the same name, and --out has a folder for each name: leave out --out, or rename "
                        "one")
    _on_ranks(_embed, args)


def neighbors(args: argparse.Namespace) -> None:
    """Write scores float32 and rows int64, both (queries, k). Raises UserError for stores that do not fit."""
    _on_ranks(_neighbors, args)


def _on_ranks(work: Callable[[argparse.Namespace, World], None], args: argparse.Namespace) -> None:
    keep_freed_memory()
    world = distributed.start("auto")
    try:
        with distributed.lost_rank_is_a_sentence(world.rank):
            work(args, world)
    finally:
        distributed.stop()


def _embed(args: argparse.Namespace, world: World) -> None:
    for folder in args.run:
        model = load_model(folder, args.checkpoint, views_of(args))
        known = splits(args.data, model.cache)
        gallery = Dataset(args.data, GALLERY if GALLERY in known else known[0], model.cache)
        out = args.out / folder.name if args.out else stores(folder, model.trained_on, gallery)
        for split in args.splits or known:
            dataset = Dataset(args.data, split, model.cache)
            path = store(out, split, model.variant)
            if not _is_there(path, model, dataset, args):
                write_split(model, dataset, path, args.dtype, args.batch, world)
            if world.is_main:
                print(f"{path}: {len(dataset):,} x {model.embedder.dim} {args.dtype}")


def _is_there(path: Path, model: RunModel, dataset: Dataset, args: argparse.Namespace) -> bool:
    """Whether the store holds just these. A run's own folder may hold those of an older checkpoint; --out may not."""
    kept = load_kept(path, model, dataset)
    if kept and kept.vectors.dtype == args.dtype:
        return True
    if args.out and is_store(path):
        raise UserError(f"{path} has embeddings of other weights, photos, views, size or dtype: choose another --out, "
                        "or delete it")
    return False


def _neighbors(args: argparse.Namespace, world: World) -> None:
    queries, gallery = Embeddings.load(args.queries), Embeddings.load(args.gallery)
    if len({(kept.provenance.model, kept.provenance.tta, kept.provenance.size) for kept in (queries, gallery)}) > 1:
        raise UserError(f"{args.queries} and {args.gallery} are of different weights, views or sizes, and cannot be "
                        "compared: embed both with one run, one --tta and one --size")
    if not len(queries.vectors):
        raise UserError(f"{args.queries} holds no embeddings, and so no queries to find neighbors for: embed a split "
                        "that has photos")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    try:
        scores, rows = nearest_over_ranks(queries.vectors, gallery.vectors, args.k, world)
    except ValueError as error:
        raise UserError(f"{args.gallery}: {error}") from error
    if world.is_main:
        with whole_file(args.out) as f:
            np.savez(f, allow_pickle=False, scores=scores, rows=rows)
        print(f"{args.out}: {len(rows):,} queries, {args.k} of {len(gallery.keys):,} each")
