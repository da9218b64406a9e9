"""Measure a run's embedding: the val and test photos as queries, the train photos as gallery.

python evaluate.py --run runs/demo --data data/demo/dataset
python evaluate.py --run runs/demo --data data/demo/dataset --untrained   (ImageNet weights, for comparison)

Prints and writes RUN/eval.json (eval-untrained.json): {split: {gap, gap_landmark_only, recall@1, map@100}}.
The embeddings stay in RUN/embeddings, where predict.py and report.py find them.
"""
import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arcshard import checkpoint
from arcshard.console import Parser, UserError, progress, run
from arcshard.embedding import embed
from arcshard.files import write_text
from arcshard.memory import keep_freed_memory
from loader import Loader, View
from model import Embedder, ModelConfig, build_embedder
from retrieval import Embeddings, Evaluation, evaluate
from retrieval.answers import POWER, VOTERS
from shards import Dataset, splits

GALLERY = "train"


@dataclass
class RunModel:
    """A run's network, ready to embed."""

    embedder: Embedder
    size: int
    """Side of the images that it was trained on, pixels."""
    view: View
    """How photos were framed for its training."""
    packing: dict[str, Any]
    """How the photos that it was trained on were packed."""
    fingerprint: str
    """Of its weights."""
    device: torch.device


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    data, out = args.data, args.run
    model = load_untrained(out) if args.untrained else load_model(out, args.checkpoint)
    queries = [split for split in splits(data) if split == "val" or split.startswith("test")]
    if not queries or GALLERY not in splits(data):
        raise UserError(f"an evaluation needs a train split and a val or test split; {data} has "
                        f"{', '.join(splits(data))}: give clean.py --val-fold or --solution and pack again")
    embedded = {split: embed_split(model, Dataset(data, split), None if args.untrained else store(out, split))
                for split in (GALLERY, *queries)}
    results = {split: evaluate_split(embedded[split], Dataset(data, split).truths(), embedded[GALLERY],
                                     model.device.type).metrics for split in queries}
    name = "eval-untrained.json" if args.untrained else "eval.json"
    write_text(out / name, json.dumps(results, indent=2) + "\n")
    print(table(results))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    add_checkpoint(parser)
    parser.add_argument("--untrained", action="store_true",
                        help="the run's backbone with its pretrained weights, average-pooled, without neck")
    return parser.parse_args()


def add_checkpoint(parser: Parser) -> None:
    parser.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE",
                        help=f"the run's file to use (default: {checkpoint.NAME}, the latest; {checkpoint.BEST} is "
                             "there with train.best, others with train.keep)")


def load_model(out: Path, name: str = checkpoint.NAME) -> RunModel:
    """The network of a checkpoint of the run; no other weights are needed."""
    saved = checkpoint.load(out, name)
    model = _run_model(saved, checkpoint.fingerprint(out, name), weights="none")
    model.embedder.load_state_dict(checkpoint.embedder_to_use(saved))
    return model


def load_untrained(out: Path) -> RunModel:
    """What the run began from: the pretrained backbone, averaged as in its own training (stronger here than GeM)."""
    return _run_model(checkpoint.load(out), "untrained", neck="none", pooling="avg")


def _run_model(saved: dict[str, Any], fingerprint: str, **changes: Any) -> RunModel:
    config = saved["config"]
    cuda = torch.cuda.is_available() and config["train"]["device"] != "cpu"
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    embedder = build_embedder(replace(ModelConfig(**config["model"]), **changes)).to(device)
    view = View(**config["view"])
    return RunModel(embedder, config["train"]["size"], view, saved["packing"], fingerprint, device)


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


def evaluate_split(queries: Embeddings, truths: list[set[int]], gallery: Embeddings, device: str) -> Evaluation:
    """Answers and metrics of the queries, whose true labels are `truths`."""
    return evaluate(queries.vectors, truths, gallery.vectors, gallery.labels, voters=VOTERS, power=POWER,
                    device=device)


def table(results: dict[str, dict[str, float]]) -> str:
    """A line a split, metrics in columns."""
    names = list(next(iter(results.values())))
    lines = [f"{'':6}" + "".join(f"{name:>20}" for name in names)]
    lines += [f"{split:6}" + "".join(f"{values[name]:20.4f}" for name in names) for split, values in results.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
