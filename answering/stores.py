"""What `python -m retrieval` does with stores of embeddings: make them, search one in another; on all ranks."""
import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from answering.embedding import BATCH, load_kept, store, write_split
from answering.options import add_checkpoint, add_tta
from answering.run_model import RunModel, load_model
from arcshard import distributed
from arcshard.console import UserError
from arcshard.distributed import World
from arcshard.files import whole_file
from arcshard.memory import keep_freed_memory
from retrieval.sharded import nearest_over_ranks
from retrieval.store import DTYPES, Embeddings, is_store
from shards import Dataset, splits


def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="folders that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder, or s3://… (read through the run's cache)")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: all")
    parser.add_argument("--out", type=Path, help="folder for the stores (default: each run's own)")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help=f"default: {DTYPES[0]}")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"photos at a time on each rank (default: {BATCH})")
    add_checkpoint(parser)
    add_tta(parser)


def add_neighbours_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--queries", type=Path, required=True, help="store of embeddings")
    parser.add_argument("--gallery", type=Path, required=True, help="store of embeddings")
    parser.add_argument("--k", type=int, default=10, help="neighbours a query (default: 10)")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")


def embed(args: argparse.Namespace) -> None:
    """Leave a store a run and split. Raises UserError for what cannot be embedded or kept apart."""
    if args.batch < 1:
        raise UserError(f"--batch must be at least 1; got {args.batch}")
    if args.out and len({folder.name for folder in args.run}) < len(args.run):
        raise UserError("--out has a folder for each run's name, but two runs share one: leave out --out, or rename "
                        "one")
    _on_ranks(_embed, args)


def neighbours(args: argparse.Namespace) -> None:
    """Write scores float32 and rows int64, both (queries, k). Raises UserError for stores that do not fit."""
    _on_ranks(_neighbours, args)


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
        model = load_model(folder, args.checkpoint, args.tta)
        for split in args.splits or splits(args.data, model.cache):
            dataset = Dataset(args.data, split, model.cache)
            path = store(folder, split, args.tta)
            if args.out:
                path = args.out / folder.name / path.name
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
        raise UserError(f"a store holds embeddings of one kind, but {path} has those of other weights, photos, views "
                        "or dtype: choose another --out, or delete it")
    return False


def _neighbours(args: argparse.Namespace, world: World) -> None:
    queries, gallery = Embeddings.load(args.queries), Embeddings.load(args.gallery)
    if (queries.made.model, queries.made.tta) != (gallery.made.model, gallery.made.tta):
        raise UserError(f"embeddings compare only with those of the same weights and views, but {args.queries} and "
                        f"{args.gallery} are of two: embed both with one run and one --tta")
    if not len(queries.vectors):
        raise UserError(f"{args.queries} holds no embeddings, and so no queries to find neighbours for: embed a split "
                        "that has photos")
    try:
        scores, rows = nearest_over_ranks(queries.vectors, gallery.vectors, args.k, world)
    except ValueError as error:
        raise UserError(f"{args.gallery}: {error}") from error
    if world.is_main:
        with whole_file(args.out) as f:
            np.savez(f, allow_pickle=False, scores=scores, rows=rows)
        print(f"{args.out}: {len(rows):,} queries, {args.k} of {len(gallery.keys):,} each")
