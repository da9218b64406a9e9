"""What answering photos costs beyond what it must: one photo beside its network's pass, a folder beside a dataset.

    python benchmarks/prediction.py --run runs/demo --index data/demo/dataset --images data/demo/photos/test

One photo: the time of a call beside that of decoding its file and of the network's forward pass on one image, what no
answer can do without; the ratio is of one moment, a photo after the other. A folder: photos/s embedded from their files
beside those embedded by evaluate.py's way from a packed copy, in turns; the copy is packed before. Embeddings are
compared, since they should be equal.
"""
import argparse
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import simplejpeg
import torch
from machine import listed, machine, median_range
from numpy.typing import NDArray

from arcshard.console import Parser, UserError, check_least, run
from loader.frames import frame
from preprocess.engine import Engine
from preprocess.images.normalize import normalize
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from retrieval.run.embed import embed_rows
from retrieval.run.model import RunModel, embed_views
from retrieval.run.predictor import Predictor
from retrieval.run.unpacked import UnpackedPhotos, embed_photos
from shards import Dataset

ASKED = 40  # photos a round, one at a time
SPLIT = "query"


def main() -> None:
    args = parse_args()
    files = sorted(args.images.rglob("*.jpg"))
    if not files:
        raise UserError(f"--images has no .jpg: {args.images}; check the path")
    start = time.perf_counter()
    predictor = Predictor(args.run, args.index, size=args.size)
    print(listed(machine(("torch", "nvidia-dali-cuda130", "simplejpeg", "numpy"))))
    print(f"loading: {time.perf_counter() - start:.2f} s after imports; network on {predictor.indexes[0].model.device}")
    one_photo(predictor, list(islice(cycle(files), ASKED)), args.rounds)
    folder(predictor.indexes[0].model, files, args.rounds)


def parse_args() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder that train.py wrote")
    parser.add_argument("--index", required=True, help="dataset, or embeddings of the run")
    parser.add_argument("--images", type=Path, required=True, help="folder of .jpg photos")
    parser.add_argument("--size", type=int, help="side of the images, pixels (default: the run's)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    args = parser.parse_args()
    check_least(args, 1, "rounds", "size")
    return args


def one_photo(predictor: Predictor, files: list[Path], rounds: int) -> None:
    """Print times of a call and of what it cannot do without, and the ratio of each round."""
    model = predictor.indexes[0].model
    images = [single(model, file) for file in files]
    predictor(files[0])
    calls, parts = [], []
    for _ in range(rounds):
        pairs = [(seconds(lambda: predictor(file)), seconds(lambda: bare(model, file, image)))
                 for file, image in zip(files, images)]
        calls.append(min(call for call, _ in pairs))
        parts.append(min(part for _, part in pairs))
    print(f"one photo, fastest of {len(files)} in each round: {median_range([1000 * s for s in calls], '.1f')} ms; "
          f"decode and forward pass {median_range([1000 * s for s in parts], '.1f')} ms; "
          f"ratio {median_range([call / part for call, part in zip(calls, parts)], '.2f')}")


def single(model: RunModel, file: Path) -> torch.Tensor:
    """The photo as the network sees it, uint8 (1, S, S, 3)."""
    image = frame(UnpackedPhotos([file], model.packing).read(0), model.view, model.size)
    return torch.from_numpy(image[None]).to(model.device)


def bare(model: RunModel, file: Path, image: torch.Tensor) -> None:
    simplejpeg.decode_jpeg(file.read_bytes(), "RGB")
    embed_views(model.embedder, [image], model.tta.flip, torch.ones(1, 3, device=model.device))


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def folder(model: RunModel, files: list[Path], rounds: int) -> None:
    """Print rates from files and from their packed copy, and how far the embeddings lie apart."""
    with tempfile.TemporaryDirectory() as work:
        packed = packed_copy(model, files, Path(work) / "dataset")
        keys = [f"photo_{number:06d}" for number in range(len(files))]
        place = {key.decode(): row for row, key in enumerate(packed.index["key"].tolist())}
        found: dict[str, NDArray[np.float32]] = {}
        ways = {"files": lambda: embed_photos(model, UnpackedPhotos(files, model.packing), show=False)[0],
                "shards": lambda: np.concatenate([*embed_rows(model, packed, range(len(packed)), show=False)])}
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for i in range(rounds):
            for name in list(ways)[::-1 if i % 2 else 1]:  # each is first in every other round
                start = time.perf_counter(), time.process_time()
                found[name] = ways[name]()
                took[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    for kind, column in (("elapsed", 0), ("processor", 1)):
        ours, theirs = ([pair[column] for pair in pairs] for pairs in took.values())
        print(f"{len(files):,} photos by {kind} time: from files {rates(len(files), ours)}/s, from shards "
              f"{rates(len(files), theirs)}/s, ratio {median_range([b / a for a, b in zip(ours, theirs)], '.2f')}")
    rows = [number for number, key in enumerate(keys) if key in place]
    apart = np.abs(found["files"][rows] - found["shards"][[place[keys[number]] for number in rows]]).max(1)
    print(f"embeddings: {(apart == 0).sum():,} of {len(rows):,} equal bit for bit, the rest within {apart.max():.1e}; "
          f"{normalizing(model, files):.2f} ms of a core for a photo's way into normal form")


def rates(photos: int, seconds: list[float]) -> str:
    return median_range([photos / each for each in seconds], ".1f")


def packed_copy(model: RunModel, files: list[Path], out: Path) -> Dataset:
    """The photos as make_shards.py packs them for the run."""
    keys = [f"photo_{number:06d}" for number in range(len(files))]
    images = out.parent / "images"
    images.mkdir()
    for key, file in zip(keys, files):
        (images / f"{key}.jpg").symlink_to(file.resolve())
    options = {name: model.packing[name] for name in ("short_side", "quality", "max_pixels") if name in model.packing}
    pack(pd.DataFrame({"id": keys, "landmark_id": "", "label": -1, "split": SPLIT}), [images], out,
         PackOptions(**options), Engine())
    return Dataset(out, SPLIT)


def normalizing(model: RunModel, files: list[Path]) -> float:
    """Milliseconds of processor time for a photo's way into normal form."""
    data = [file.read_bytes() for file in files]
    start = time.process_time()
    for each in data:
        normalize(each, model.packing.get("short_side"), model.packing.get("quality", 90))
    return 1000 * (time.process_time() - start) / len(files)


if __name__ == "__main__":
    run(main)
