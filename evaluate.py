"""Measure a run's embedding: the val and test photos as queries, the train photos as gallery.

python evaluate.py --run runs/demo --data data/demo/dataset
python evaluate.py --run runs/demo --data data/demo/dataset --untrained   (ImageNet weights, for comparison)
python evaluate.py --run runs/demo --data data/demo/dataset --answers configs/answers/first-place.yaml --ablate

Prints and writes RUN/eval.json: {split: {gap, gap_landmark_only, recall@1, map@100}}, and RUN/eval-details.json:
GAP's 95 % interval, longer lists, right answers at a share of false ones, the worst classes. With options the names
are eval-untrained, eval-ANSWERS, eval-ANSWERS-with-RUN. recall@1 and map@100 are those of the embeddings, whatever the
answers. The embeddings stay in RUN/embeddings, where predict.py and report.py find them.

Steps that compare with photos without landmark take those of the val and test splits; where these are queries too,
each half is judged by the other half's.
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
from retrieval import Embeddings, Pipeline, Questions, Vectors, evaluate, read_pipeline
from retrieval.ablation import ablation, ablation_table
from retrieval.details import details
from shards import CacheConfig, Dataset, splits

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
    cache: CacheConfig
    """How it reads object storage."""
    fingerprint: str
    """Of its weights."""
    device: torch.device
    centers: np.ndarray | None = None
    """The head's centres, float32 (C, K, D)."""


def main() -> None:
    args = parse_args()
    keep_freed_memory()
    data, out = args.data, args.run
    pipeline = read_pipeline(args.answers) if args.answers else Pipeline()
    runs = [out, *args.ensemble]
    models = [load_untrained(out)] if args.untrained else [load_model(run, args.checkpoint) for run in runs]
    folders = [None] if args.untrained else runs
    embedded = [embed_all(model, data, folder) for model, folder in zip(models, folders, strict=True)]
    device, cache, results, more = models[0].device.type, models[0].cache, {}, {}
    for split in query_splits(data, cache):
        asked = questions(models, embedded, split, Dataset(data, split, cache).truths())
        try:
            found = evaluate(asked, pipeline, device)
            if args.ablate:
                print(ablation_table(split, ablation(asked, pipeline, device)))
        except ValueError as error:  # a step that lacks what it needs
            raise UserError(f"{args.answers or data}: {error}") from error
        results[split], more[split] = found.metrics, details(asked, found)
    name = "-".join(["eval", *(["untrained"] if args.untrained else []), *([args.answers.stem] if args.answers else []),
                     *(["with"] if args.ensemble else []), *(run.name for run in args.ensemble)])
    for path, content in ((f"{name}.json", results), (name.replace("eval", "eval-details", 1) + ".json", more)):
        write_text(out / path, json.dumps(content, indent=2) + "\n")
    print(table(results))


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--data", required=True, help="dataset: folder, or s3://… (read through the run's cache)")
    parser.add_argument("--untrained", action="store_true",
                        help="the run's backbone with its pretrained weights, average-pooled, without neck")
    add_checkpoint(parser)
    add_answer_options(parser)
    parser.add_argument("--ablate", action="store_true", help="print what each step of the answers gains")
    args = parser.parse_args()
    if args.untrained and args.ensemble:
        parser.error("--untrained measures one run: leave out --ensemble")
    return args


def add_answer_options(parser: argparse.ArgumentParser) -> None:
    """What decides how photos are answered, here, in predict.py and in tune.py."""
    parser.add_argument("--answers", type=Path, help="YAML list of steps, as in configs/answers; default: five voters")
    parser.add_argument("--ensemble", type=Path, nargs="+", default=[], metavar="RUN",
                        help="further runs, whose embeddings answer together with this one's")


def query_splits(data: str, cache: CacheConfig) -> list[str]:
    """The dataset's val and test splits. Raises UserError if it has none, or no gallery."""
    known = splits(data, cache)
    queries = [split for split in known if split == "val" or split.startswith("test")]
    if not queries or GALLERY not in known:
        raise UserError(f"an evaluation needs a train split and a val or test split; {data} has "
                        f"{', '.join(known)}: give clean.py --val-fold or --solution and pack again")
    return queries


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default=checkpoint.NAME, metavar="FILE",
                        help=f"the run's file to use (default: {checkpoint.NAME}, the latest; {checkpoint.BEST} is "
                             "there with train.best, others with train.keep)")


def load_model(out: Path, name: str = checkpoint.NAME) -> RunModel:
    """The network of a checkpoint of the run; no other weights are needed."""
    saved = checkpoint.load(out, name)
    model = _run_model(saved, checkpoint.fingerprint(out, name), weights="none")
    weights = checkpoint.weights_to_use(saved)
    model.embedder.load_state_dict(weights["embedder"])
    centers = saved["config"]["head"]["centers"]
    return replace(model, centers=weights["head"]["weight"].float().unflatten(0, (-1, centers)).numpy())


def load_untrained(out: Path) -> RunModel:
    """What the run began from: the pretrained backbone, averaged as in its own training (stronger here than GeM)."""
    return _run_model(checkpoint.load(out), "untrained", neck="none", pooling="avg")


def _run_model(saved: dict[str, Any], fingerprint: str, **changes: Any) -> RunModel:
    config = saved["config"]
    cuda = torch.cuda.is_available() and config["train"]["device"] != "cpu"
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    embedder = build_embedder(replace(ModelConfig(**config["model"]), **changes)).to(device)
    view, cache = View(**config["view"]), CacheConfig(**config.get("cache", {}))
    return RunModel(embedder, config["train"]["size"], view, saved["packing"], cache, fingerprint, device)


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


def questions(models: list[RunModel], embedded: list[dict[str, Embeddings]], split: str,
              truths: list[set[int]]) -> Questions:
    """A split's queries to the gallery, with the photos without landmark of all splits to compare with."""
    first = embedded[0]
    return Questions(tuple(Vectors(known[split].vectors, known[GALLERY].vectors, non_landmarks(known)[0], model.centers)
                           for model, known in zip(models, embedded, strict=True)),
                     first[GALLERY].labels, truths, first[split].keys, non_landmarks(first)[1])


def non_landmarks(embedded: dict[str, Embeddings]) -> tuple[np.ndarray, list[str]]:
    """Vectors and keys of the photos without landmark among the queries."""
    known = [part for split, part in embedded.items() if split != GALLERY]
    return (np.concatenate([part.vectors[part.labels < 0] for part in known]),
            [key for part in known for key, label in zip(part.keys, part.labels.tolist()) if label < 0])


def table(results: dict[str, dict[str, float]]) -> str:
    """A line a split, metrics in columns."""
    names = list(next(iter(results.values())))
    lines = [f"{'':6}" + "".join(f"{name:>20}" for name in names)]
    lines += [f"{split:6}" + "".join(f"{values[name]:20.4f}" for name in names) for split, values in results.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
