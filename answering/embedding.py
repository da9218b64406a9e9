"""A run's embeddings of a dataset's splits, computed once and kept below the run."""
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from answering.questions import GALLERY, query_splits
from answering.run_model import RunModel
from answering.tta import Tta, embed_views
from arcshard.alone import alone
from arcshard.console import UserError, progress
from arcshard.distributed import World
from loader import Loader
from retrieval import Embeddings
from retrieval.parts import ROWS, Parts, in_parts, runs, share
from retrieval.store import Made, write_store
from shards import Dataset

BATCH = 64
ALONE = World(0, 1, torch.device("cpu"))


def store(out: Path, split: str, tta: Tta = Tta()) -> Path:
    """Where a run keeps the embeddings of a split."""
    return out / "embeddings" / (split if tta == Tta() else f"{split}.{tta.name}")


def embed_split(model: RunModel, dataset: Dataset, path: Path | None, keep: bool = True) -> Embeddings:
    """The split's embeddings: from the store `path` if it holds just these, else computed; `keep` writes them there."""
    if path and (kept := load_kept(path, model, dataset)):
        return kept
    if path and keep:
        write_split(model, dataset, path)
        return Embeddings.load(path)
    vectors = np.concatenate([*embed_rows(model, dataset, range(len(dataset)))])
    return Embeddings(vectors, *rows_of(dataset), made(model, dataset))


def write_split(model: RunModel, dataset: Dataset, path: Path, dtype: str = "float32", batch: int = BATCH,
                world: World = ALONE, part_rows: int = ROWS) -> None:
    """Write the store of a split, each rank a contiguous share of what an interrupted try left; all ranks must call.

    part_rows: a kill costs each rank fewer. Raises UserError for embeddings that are not finite, and if another process
    writes there.
    """
    path.mkdir(parents=True, exist_ok=True)
    parts = Parts(path, made(model, dataset), len(dataset), dtype, part_rows)
    with alone(path) if world.is_main else nullcontext():
        if world.is_main:
            parts.begin()
        world.wait()
        own = share(parts.missing(), world.rank, world.size)
        world.wait()  # every rank has looked before one writes
        for first, last in runs(own):
            vectors = embed_rows(model, dataset, parts.rows_of(first, last), batch, show=world.is_main)
            for number, part in enumerate(in_parts(vectors, part_rows), first):
                parts.write(number, part)
        world.wait()
        if world.is_main:
            try:
                write_store(path, parts.blocks(), *rows_of(dataset), made(model, dataset))
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
            yield embed_views(model.embedder, batches, model.tta.flip)
            bar.update(len(batches[0].ids))


def made(model: RunModel, dataset: Dataset) -> Made:
    """What tells this model's embeddings of this split from all others."""
    return Made(model.fingerprint, dataset.fingerprint, dataset.split, model.tta.name)


def rows_of(dataset: Dataset) -> tuple[list[str], NDArray[np.int64], list[str]]:
    """Keys, labels and landmark ids of a split's samples."""
    labels = dataset.labels.astype(np.int64)
    return ([key.decode() for key in dataset.index["key"]], labels,
            [dataset.landmark_ids[label] if label >= 0 else "" for label in labels])


def load_kept(path: Path, model: RunModel, dataset: Dataset) -> Embeddings | None:
    """What `path` holds, if it is whole and of these weights, photos and views; the rest is computed again."""
    try:
        kept = Embeddings.load(path)
    except UserError:
        return None
    return kept if kept.made == made(model, dataset) else None


def embed_all(model: RunModel, data: str, out: Path | None) -> dict[str, Embeddings]:
    """Embeddings of the gallery and of every split with queries, kept below the run's folder if one is given."""
    return {split: embed_split(model, Dataset(data, split, model.cache), store(out, split, model.tta) if out else None)
            for split in (GALLERY, *query_splits(data, model.cache))}
