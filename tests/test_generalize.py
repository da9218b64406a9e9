"""A run that training generalize wrote: PCA of the pooled features beside what was learned."""
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import evaluate
import training.__main__
from arcshard import checkpoint
from arcshard.console import UserError
from loader import Loader
from model.augment import prepare
from retrieval.run.model import load_model
from shards import Dataset
from tests.random_run import save_random_run


@pytest.fixture
def generalize(monkeypatch, capsys, dataset_path, tmp_path):
    run = save_random_run(tmp_path / "run", len(Dataset(dataset_path).landmark_ids), centers=2)

    def call(*words, run=run):
        monkeypatch.setattr(sys, "argv", ["training", "generalize", str(run), "--data", str(dataset_path), "--out",
                                          str(tmp_path / "general"), *map(str, words)])
        training.__main__.main()
        return tmp_path / "general"
    return call


@torch.inference_mode()
def test_an_embedding_is_what_was_learned_and_pca_of_the_pooled_features(
        generalize, dataset_path, tmp_path, monkeypatch, capsys):
    general, run = load_model(generalize("--dim", 8, "--share", 0.6)), load_model(tmp_path / "run")
    dataset = Dataset(dataset_path)
    images = torch.cat([batch.images for batch in Loader(dataset, batch_size=64, size=48, train=False, view=run.view)])
    pooled = run.embedder.pooled(prepare(images, None, run.embedder.mean, run.embedder.std))
    centered = pooled.double().numpy() - pooled.double().numpy().mean(axis=0)
    values, directions = np.linalg.eigh(centered.T @ centered / len(centered))
    scaled = centered @ directions[:, :-9:-1] / values[:-9:-1] ** 0.25  # half of the way to whitening

    def cosines(vectors):
        unit = F.normalize(torch.as_tensor(vectors).double())
        return unit @ unit.T

    found = general.embedder(images)
    expected = 0.4 * cosines(run.embedder(images)) + 0.6 * cosines(scaled)
    torch.testing.assert_close(cosines(found), expected, atol=1e-5, rtol=0)
    assert general.embedder.dim == found.shape[1] == 32 + 8

    labels = torch.from_numpy(np.asarray(dataset.labels).astype(np.int64))
    means = torch.stack([F.normalize(found)[labels == c].mean(0) for c in range(len(dataset.landmark_ids))])
    torch.testing.assert_close(torch.from_numpy(general.centers)[:, 0], F.normalize(means), atol=1e-5, rtol=0)

    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--run", str(tmp_path / "general"), "--data", str(dataset_path)])
    evaluate.main()
    assert "recall@1" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(generalize, tmp_path, monkeypatch):
    for words, sentence in ((("--share", 1), "--share is 1.0: give more than 0 and less than 1"),
                            (("--dim", 8, "--images", 4), "vary in 3 dimensions only: give 1 to 3")):
        with pytest.raises(UserError, match=sentence):
            generalize(*words)
    assert not (tmp_path / "general").exists()
    general = generalize("--dim", 8)
    with pytest.raises(UserError, match="general has a checkpoint.pt: give another --out"):
        generalize()
    (tmp_path / "again").mkdir()
    general.rename(tmp_path / "again" / "run")
    with pytest.raises(UserError, match="run has a PCA already: give the run that train.py wrote"):
        generalize(run=tmp_path / "again" / "run")


def test_a_class_without_photos_has_a_center(generalize, tmp_path):
    weight = checkpoint.load(generalize("--dim", 8)).weights.head["weight"]
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight)))


def test_training_with_a_pca_is_refused(call, dataset_path, tmp_path):
    done = call("train.py", "--data", dataset_path, "--out", tmp_path / "out", "--model.pca_dim", 8,
                "--model.backbone", "test_efficientnet", "--model.weights", "none")
    assert done.returncode == 2 and "model.pca_dim is 8, which is fitted after training: leave it out" in done.stderr
