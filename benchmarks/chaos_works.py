"""What the campaign disturbs: each command that writes, what lies in its folder before, and what must be there after.

The inputs are made once: 240 drawn photos of 8 classes, two sample tables, a dataset, and a run of a tiny network.
"""
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from arcshard import checkpoint
from arcshard.console import UserError
from training import log

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # the servers that fail on demand are the tests'
from tests import kaggle_server  # noqa: E402

CLASSES, PER_CLASS, FIRST = 8, 30, 20  # photos of a class; those of the first table
SHARD = 20  # photos
PACK = ["preprocess/make_shards.py", "--workers", 2, "--shard-size", SHARD]
TRAIN = ["train.py", "--model.backbone", "test_efficientnet", "--model.weights", "none", "--model.dim", 16,
         "--train.size", 32, "--train.global_batch", 16, "--train.device", "cpu", "--train.log_every", 1,
         "--train.epochs", 4, "--train.checkpoint_every", 0.25, "--loader.num_threads", 1]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
FETCHED = kaggle_server.zip_bytes(0, 8 << 20)

Words = list[Any]


class Inputs(NamedTuple):
    """Files that the campaign's commands read, in its work folder."""

    folder: Path

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def table(self) -> Path:
        return self.folder / "samples.csv"

    @property
    def longer_table(self) -> Path:
        return self.folder / "more.csv"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def store(self) -> Path:
        return self.run / "embeddings" / "train"


class Work(NamedTuple):
    """A command, by a name of its own, that ends with the same result however often it was disturbed and repeated.

    prepare(inputs, folder) fills an empty folder; words(inputs, folder) is the command, as Python's arguments in ROOT;
    result(folder) is compared; variables are set in its environment.
    """

    name: str
    prepare: Callable[[Inputs, Path], None]
    words: Callable[[Inputs, Path], Words]
    result: Callable[[Path], Any]
    variables: Mapping[str, str] = {}
    launcher: bool = False
    """It is started by torchrun, which prints a traceback of its own when a rank fails or is stopped."""


def nothing(inputs: Inputs, folder: Path) -> None:
    """The folder stays empty."""


def files(folder: Path) -> dict[str, str]:
    """sha256 by relative path of all files below `folder`."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def trained(run: Path) -> Any:
    """Losses of all steps, and a digest of the weights."""
    weights = checkpoint.load(run).weights
    digest = hashlib.sha256()
    for name, value in sorted({**weights.embedder, **{f"head {key}": v for key, v in weights.head.items()}}.items()):
        if isinstance(value, torch.Tensor):
            digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return [(line["step"], line["position"], line["loss"]) for line in log.read(run)], digest.hexdigest()


def exported(folder: Path) -> Any:
    """The tensors of each safetensors file by name, and its metadata, whose order in the file is random."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as f:
            found[path.name] = {key: f.get_tensor(key).tolist() for key in f.keys()}, f.metadata()
    return found


def damaged_dataset(inputs: Inputs, folder: Path) -> None:
    """A dataset whose indexes are gone, for repair."""
    shutil.copytree(inputs.dataset, folder / "dataset")
    for path in [*folder.glob("dataset/train*.idx"), folder / "dataset/train.index.npy"]:
        path.unlink()


WORKS = (
    Work("pack", nothing,
         lambda i, f: [*PACK, "--samples", i.table, "--images", i.photos, "--out", f / "dataset"],
         lambda f: files(f / "dataset")),
    Work("append", lambda i, f: (shutil.copytree(i.dataset, f / "dataset"), None)[1],
         lambda i, f: [*PACK, "--samples", i.longer_table, "--images", i.photos, "--out", f / "dataset", "--append"],
         lambda f: files(f / "dataset")),
    Work("repair", damaged_dataset, lambda i, f: ["-m", "shards", "repair", f / "dataset"],
         lambda f: files(f / "dataset")),
    Work("train", nothing, lambda i, f: [*TRAIN, "--data", i.dataset, "--out", f / "run"],
         lambda f: trained(f / "run")),
    Work("train on 2 ranks", nothing, lambda i, f: [*TORCHRUN, *TRAIN, "--data", i.dataset, "--out", f / "run"],
         lambda f: trained(f / "run"), launcher=True),
    Work("embed", nothing, lambda i, f: ["-m", "retrieval", "embed", "--run", i.run, "--data", i.dataset, "--splits",
                                         "train", "--batch", 16, "--out", f / "store"],
         lambda f: files(f / "store")),
    Work("export", nothing, lambda i, f: ["export.py", "--run", i.run, "--out", f / "network.safetensors"],
         exported),
)


def fetch(server: kaggle_server.Kaggle, home: Path) -> Work:
    """The download of 25 MB from a server that speaks as Kaggle does."""
    (home / ".kaggle").mkdir(parents=True, exist_ok=True)
    return Work("fetch", nothing, lambda i, f: ["preprocess/fetch.py", "--out", f], lambda f: files(f),
                {"HOME": str(home), "http_proxy": server.url, "https_proxy": server.url, "no_proxy": "",
                 "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "KAGGLE_API_TOKEN": kaggle_server.TOKEN})


def make_inputs(folder: Path) -> Inputs:
    """Draw, pack, train and embed what is missing of the inputs."""
    inputs = Inputs(folder)
    if not inputs.store.exists():
        shutil.rmtree(folder, ignore_errors=True)
        inputs.photos.mkdir(parents=True)
        rows = list(draw(inputs.photos))
        for table, most in ((inputs.table, FIRST), (inputs.longer_table, PER_CLASS)):
            lines = [row for number, row in rows if number < most]
            table.write_text("\n".join(["id,landmark_id,label,split", *lines]) + "\n")
        command([*PACK, "--samples", inputs.table, "--images", inputs.photos, "--out", inputs.dataset])
        command([*TRAIN, "--data", inputs.dataset, "--out", inputs.run])
        command(["-m", "retrieval", "embed", "--run", inputs.run, "--data", inputs.dataset])
    return inputs


def draw(folder: Path) -> Iterator[tuple[int, str]]:
    """Write the photos; yields each one's number in its class and its row of the table."""
    for label in range(CLASSES):
        coarse = np.random.default_rng(label).integers(0, 256, (6, 8, 3), np.uint8)
        for number in range(PER_CLASS):
            rng, key = np.random.default_rng((label, number)), f"c{label}n{number:02d}"
            x, y = rng.integers(0, 40, 2)
            photo = Image.fromarray(coarse).resize((240, 190)).crop((x, y, x + 200, y + 150))
            photo.save(folder / f"{key}.jpg", quality=92, subsampling="4:2:0")
            yield number, f"{key},{1000 + label},{label},{'val' if number % 10 == 9 else 'train'}"


def command(words: Words) -> None:
    """Run it undisturbed. Raises UserError if it fails."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{words[0]} failed while nothing disturbed it: {done.stderr.strip().splitlines()[-1:]}")
