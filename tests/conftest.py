"""Fixtures that many tests share: a small packed dataset of made-up photos."""
import io
import os
import resource
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from tests.commands import ROOT, run_here, run_process
from tests.forked import run_ranks

CLASSES = 6


def pytest_configure() -> None:
    """One thread for torch, here and in what tests start: on tiny tensors two wait for each other most of the time.

    Property tests have no deadline: an example may take long on a busy machine, and pytest-timeout ends what hangs.
    """
    with suppress(ImportError):  # a machine with a GPU and no network may have just what tests/test_gpu.py needs
        from hypothesis import HealthCheck, settings
        settings.register_profile("no deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("no deadline")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with most heavy tests first: with two workers none is left with a long file at the end."""
    heavy = Counter(item.path for item in items if item.get_closest_marker("heavy"))
    items.sort(key=lambda item: -heavy[item.path])


def photo(label: int, number: int) -> bytes:
    """A 200×150 JPEG whose coarse color pattern tells its class; views of a class differ in crop and noise."""
    coarse = np.random.default_rng(label).uniform(0, 255, (6, 8, 3)).astype(np.uint8)
    rng = np.random.default_rng((label, number))
    x, y = rng.integers(0, 40, 2)
    image = Image.fromarray(coarse).resize((240, 190), Image.Resampling.BICUBIC).crop((x, y, x + 200, y + 150))
    noisy = np.clip(np.asarray(image) + rng.normal(0, 6, (150, 200, 3)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "JPEG", quality=92, subsampling="4:2:0")
    return out.getvalue()


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """A folder of photos and their sample table: 6 classes × (10 train + 3 val) and 9 test, 3 without landmark."""
    folder, rows = tmp_path_factory.mktemp("photos"), []
    for label in range(CLASSES):
        for number in range(13):
            rows.append((f"c{label}n{number:02d}", f"{1000 + 7 * label}", label, "train" if number < 10 else "val"))
        rows.append((f"c{label}test", f"{1000 + 7 * label}", label, "test"))
    rows += [(f"c{CLASSES + i}none", "", -1, "test") for i in range(3)]
    for number, (key, _, label, _) in enumerate(rows):
        seen_as = label if label >= 0 else 100 + number
        (folder / f"{key}.jpg").write_bytes(photo(seen_as, number))
    return folder, pd.DataFrame(rows, columns=["id", "landmark_id", "label", "split"])


@pytest.fixture(scope="session")
def dataset_path(photos, tmp_path_factory) -> Path:
    """The photos packed, 25 a shard."""
    out = tmp_path_factory.mktemp("packed") / "dataset"
    pack(photos[1], [photos[0]], out, PackOptions(shard_size=25), Engine())
    return out


@pytest.fixture(scope="session")
def call() -> Callable[..., subprocess.CompletedProcess]:
    """Run a command of the project in this process; returns exit code and texts as of a finished one."""
    return run_here


@pytest.fixture(scope="session")
def process() -> Callable[..., subprocess.CompletedProcess]:
    """Run a command of the project in a process of its own; returns the finished process with its texts."""
    return run_process


@pytest.fixture(scope="session")
def on_ranks() -> Callable[..., subprocess.CompletedProcess]:
    """Run a command of the project on so many ranks without torchrun; returns what all said as of one process."""
    return run_ranks


@pytest.fixture
def module(monkeypatch):
    """Import a module of benchmarks/ or docs/studies/ as the scripts beside it do."""
    for folder in ("benchmarks", "docs/studies"):
        monkeypatch.syspath_prepend(ROOT / folder)
    return __import__


def assert_one_sentence(done: subprocess.CompletedProcess, text: str) -> None:
    """Exit code 2 and a single line on stderr that holds `text`: no traceback."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and text in lines[0], done.stderr


@pytest.fixture
def make_photo():
    return photo


@pytest.fixture
def refused():
    return assert_one_sentence


@pytest.fixture
def small_files() -> AbstractContextManager[None]:
    """A context in which files may have 1 kB: writing more fails as on a full disk, with EFBIG."""
    class SmallFiles(AbstractContextManager):
        def __enter__(self):
            self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self.before[1]))

        def __exit__(self, *_):
            resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    return SmallFiles()
