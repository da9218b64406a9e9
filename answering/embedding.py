"""A run's embeddings of a dataset's splits, computed once and kept below the run."""
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from answering.questions import GALLERY, query_splits
from answering.run_model import RunModel
from arcshard.console import UserError, progress
from arcshard.embedding import embed
from loader import Loader
from retrieval import Embeddings
from shards import Dataset


def store(out: Path, split: str) -> Path:
    """Where the embeddings of a split lie."""
    return out / "embeddings" / f"{split}.npz"


def embed_split(model: RunModel, dataset: Dataset, path: Path | None, keep: bool = True) -> Embeddings:
    """The split's embeddings: from the file `path` if it holds just these, else computed; `keep` writes them there."""
    if path and (kept := _load_kept(path, model, dataset)):
        return kept
    vectors, ids = embed(model.embedder, _batches(model, dataset))
    assert np.array_equal(ids, np.arange(len(dataset)))
    labels = dataset.labels.astype(np.int64)
    landmark_ids = [dataset.landmark_ids[label] if label >= 0 else "" for label in labels]
    embeddings = Embeddings(vectors, [key.decode() for key in dataset.index["key"]], labels, landmark_ids,
                            model.fingerprint, dataset.fingerprint, dataset.split)
    if path and keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        embeddings.save(path)
    return embeddings


def _load_kept(path: Path, model: RunModel, dataset: Dataset) -> Embeddings | None:
    """What `path` holds, if it is whole and of these weights and photos; the rest is computed again."""
    try:
        kept = Embeddings.load(path)
    except UserError:
        return None
    return kept if (kept.model, kept.dataset) == (model.fingerprint, dataset.fingerprint) else None


def _batches(model: RunModel, dataset: Dataset) -> Iterator[Any]:
    loader = Loader(dataset, batch_size=64, size=model.size, train=False, view=model.view,
                    device="gpu" if model.device.type == "cuda" else "cpu")
    with progress(total=len(dataset), unit="photos", what=f"embed {dataset.split}") as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch.ids))


def embed_all(model: RunModel, data: str, out: Path | None) -> dict[str, Embeddings]:
    """Embeddings of the gallery and of every split with queries, kept below the run's folder if one is given."""
    return {split: embed_split(model, Dataset(data, split, model.cache), store(out, split) if out else None)
            for split in (GALLERY, *query_splits(data, model.cache))}
