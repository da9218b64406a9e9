"""What only a GPU can show; the graph that runs there is checked without one in test_loader.py."""
import itertools
import sys

import pytest
import torch

import train as train_page
from loader import Loader, View
from shards import Dataset
from training.log import MetricsLog
from training.state import update

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")


# DALI's kernel for JPEG repeats each chroma sample over 2 x 2 pixels, and so does the CPU path. Read, not run: in NumPy
# it differed by up to 0.9 levels from the CPU path on these photos, by 3.5 where that interpolates chroma.
@pytest.mark.parametrize("view", [View(area=(0.5, 1.0), brightness=0.2), View(framing="long", rotate=10, cutout=0.5),
                                  View(framing="squash", jpeg=(80, 90)), View(framing="short", randaugment=3)])
def test_gpu_and_cpu_loader_agree_within_a_gray_level(view, dataset_path):
    dataset = Dataset(dataset_path)
    options = {"batch_size": 12, "size": 96, "view": view}
    for cpu, gpu in itertools.islice(zip(Loader(dataset, **options), Loader(dataset, device="gpu", **options)), 5):
        assert gpu.images.is_cuda and gpu.labels.is_cuda and torch.equal(cpu.ids, gpu.ids)
        difference = (cpu.images.int() - gpu.images.cpu().int()).abs().float().mean((1, 2, 3))
        assert difference.max() < 1


def test_batches_stay_what_they_are_while_later_ones_are_decoded(dataset_path):
    """No buffer of DALI's is reused under torch's tensors."""
    batches = list(itertools.islice(Loader(Dataset(dataset_path), batch_size=12, size=64, device="gpu"), 10))
    again = itertools.islice(Loader(Dataset(dataset_path), batch_size=12, size=64, device="gpu"), 10)
    for kept, fresh in zip(batches, again):
        assert torch.equal(kept.images, fresh.images)


@pytest.mark.heavy
def test_train_compiled_on_cuda_and_continue(process, dataset_path, tmp_path):
    words = ["train.py", "--model.backbone", "test_efficientnet", "--model.weights", "none", "--train.size", "64",
             "--train.global_batch", "12", "--train.device", "cuda", "--train.log_every", "1", "--data", dataset_path,
             "--out", tmp_path / "run"]
    for epochs in ("1", "1"):
        done = process(*words, "--train.epochs", epochs)
        assert done.returncode == 0, done.stderr
    assert "already trained" in done.stdout


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("options", [["--train.amp", "bf16"], ["--train.amp", "fp16", "--train.optimizer", "adamw"]])
def test_no_step_makes_the_host_wait_between_two_lines(options, dataset_path, tmp_path, monkeypatch):
    """torch raises where it would wait, from the second step's forward pass to its count; not in a user's run, which
    should not end because a library waits once."""
    count, steps = MetricsLog.count, []

    def watched(*args):
        torch.cuda.set_sync_debug_mode("error" if steps else "default")
        return update(*args)

    def counted(self, *args):
        count(self, *args)
        torch.cuda.set_sync_debug_mode("default")
        steps.append(args)

    monkeypatch.setattr(train_page, "update", watched)
    monkeypatch.setattr(MetricsLog, "count", counted)
    words = ["train.py", "--model.backbone", "test_efficientnet", "--model.weights", "none", "--train.size", "64",
             "--train.global_batch", "12", "--train.device", "cuda", "--train.compile", "never", "--train.epochs", "2",
             "--train.ema", "60", "--data", dataset_path, "--out", tmp_path / "run", *options]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    try:
        assert train_page.main() == 0 and len(steps) == 10
    finally:
        torch.cuda.set_sync_debug_mode("default")
