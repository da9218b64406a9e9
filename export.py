"""Write a run's network for use without arcshard: as ONNX, or as weights that timm loads.

python export.py --run runs/demo --out model.onnx --data data/demo/dataset
python export.py --run runs/demo --out model.safetensors

MODEL.onnx takes uint8 photos (B, S, S, 3), RGB, any B, and gives float32 embeddings (B, D) of length 1.
MODEL.safetensors holds the backbone under timm's names, MODEL-neck.safetensors pooling and neck. docs/export.md shows
how to use them. The files are read back and compared with the network on photos of --data, or else on noise, and are
kept if they agree. Exit codes: 0 written, 1 they do not agree, 2 wrong arguments.
"""
import argparse
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from arcshard import checkpoint
from arcshard.console import Parser, UserError, run
from arcshard.files import folder_lock, report_full_disk, whole_file
from loader import Loader
from model import ModelConfig, UnitEmbedder
from model.export import read_onnx, read_timm, write_onnx, write_timm
from retrieval.run.embed import GALLERY
from retrieval.run.model import RunModel, add_checkpoint, load_model
from shards import Dataset

FORMATS = (".onnx", ".safetensors")
TOLERANCE = 1e-4  # of an element of the embedding; sums in another order gave 2e-7 on the demo
BATCH, BATCHES = 24, 3


class Disagreement(UserError):
    """The exported network computes something else."""

    code = 1


def main() -> None:
    args = parse_args()
    model = load_model(args.run, args.checkpoint)
    config = ModelConfig(**checkpoint.load(args.run, args.checkpoint).config["model"])
    network = UnitEmbedder(model.embedder).cpu().eval()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with report_full_disk(args.out), aside(args.out) as folder:
        exported = write(folder / args.out.name, network, model.size, config, about(model, config))
        difference, seen = compare(network, exported, photos(model, args.data) if args.data else noise(model.size))
        said = f"largest difference {difference:.1e} on {seen} images of {args.data or 'noise'}"
        if not difference <= TOLERANCE:  # nor NaN
            raise Disagreement(f"the export and the network differ by over {TOLERANCE}; {said}: nothing was written")
        for path in (files := sorted(folder.iterdir()))[1:]:  # a kill leaves no old one beside a new
            args.out.with_name(path.name).unlink(missing_ok=True)
        for path in files:
            with open(path, "rb") as written, whole_file(args.out.with_name(path.name)) as f:
                shutil.copyfileobj(written, f)
            print(args.out.with_name(path.name))
    print(said)


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, for one export of that name at a time, so that files of two never mix.

    Raises Locked for a second one. What a killed export left is removed.
    """
    folder = out.with_name(f".{out.name}.exporting")
    folder.mkdir(exist_ok=True)
    with folder_lock(folder):
        for path in folder.iterdir():
            path.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE",
                        help=f"file to write, {' or '.join(FORMATS)}")
    parser.add_argument("--data", help="dataset whose photos the files are checked with; default: noise")
    add_checkpoint(parser)
    args = parser.parse_args()
    if args.out.suffix not in FORMATS:
        parser.error(f"--out is {args.out}: give a name that ends in {' or '.join(FORMATS)}")
    return args


def about(model: RunModel, config: ModelConfig) -> dict[str, str]:
    """Metadata: what a user of the file must know."""
    embedder = model.embedder
    return {"backbone": config.backbone, "pooling": config.pooling, "neck": config.neck, "dim": str(embedder.dim),
            "size": str(model.size), "framing": model.view.framing, "side": f"{model.view.side:g}",
            "mean": json.dumps(embedder.mean.tolist()), "std": json.dumps(embedder.std.tolist()),
            "checkpoint_sha256": model.fingerprint}


def write(path: Path, network: UnitEmbedder, size: int, config: ModelConfig,
          about: dict[str, str]) -> Callable[[Tensor], Tensor]:
    """Write the file, or files, in the format of the name; returns the network read back from them."""
    if path.suffix == ".onnx":
        write_onnx(path, network, size, about)
        return read_onnx(path)
    write_timm(path, network.embedder, about)
    return read_timm(path, config, size)


def photos(model: RunModel, data: str) -> Iterator[Tensor]:
    """The gallery's first photos as evaluate.py sees them, uint8 (B, S, S, 3)."""
    gallery = Dataset(data, GALLERY, model.cache)
    loader = Loader(gallery, batch_size=BATCH, size=model.size, train=False, view=model.view)
    return (batch.images for batch in islice(loader, BATCHES))


def noise(size: int) -> list[Tensor]:
    """Two batches of unequal size, uint8 (B, S, S, 3)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=generator) for count in (BATCH, 1)]


@torch.inference_mode()
def compare(network: Callable[[Tensor], Tensor], exported: Callable[[Tensor], Tensor],
            batches: Iterable[Tensor]) -> tuple[float, int]:
    """Largest absolute difference of two networks' outputs, NaN where one is, and the number of images."""
    difference, seen = torch.zeros(()), 0
    for images in batches:
        difference = torch.maximum(difference, (network(images) - exported(images)).abs().max())
        seen += len(images)
    return difference.item(), seen


if __name__ == "__main__":
    run(main)
