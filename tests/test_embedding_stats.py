"""Embedding statistics against counting in plain Python, and centers that begin at the classes' means."""
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from arcshard.distributed import World
from model import ArcFace
from model.sharding import ClassShard
from model.stats import EmbeddingStats, class_means, init_centers

ALONE = World(0, 1, torch.device("cpu"))


def photos(count=30, dim=6, classes=7):
    g = torch.Generator().manual_seed(0)
    return torch.randn(count, dim, generator=g), torch.randint(classes - 1, (count,), generator=g)


def test_they_read_what_counting_finds_over_all_batches():
    head, (x, labels) = ArcFace(6, 7), photos()
    stats = EmbeddingStats(7, ALONE)
    for part in (slice(0, 11), slice(11, 30)):
        stats.update(head.cosines(x[part]), x[part], labels[part])
    cos = F.cosine_similarity(x[:, None].double(), head.weight.detach()[None].double(), dim=2).tolist()
    wrong = [max(c for other, c in enumerate(row) if other != label) for row, label in zip(cos, labels.tolist())]
    nearest = {max(range(7), key=row.__getitem__) for row in cos}
    seen = set(labels.tolist())
    assert stats.compute() == pytest.approx({
        "target_cosine": sum(row[label] for row, label in zip(cos, labels.tolist())) / 30,
        "wrong_angle": sum(math.acos(c) for c in wrong) / 30,
        "norm": sum(math.dist(row, [0] * 6) for row in x.tolist()) / 30,
        "dead_centers": len(seen - nearest) / len(seen)}, rel=1e-5)


def test_a_collapsed_embedding_shows():
    """All photos and centers one way: cosine 1, no angle to a wrong center, all centers dead but one."""
    head, x = ArcFace(6, 7), torch.ones(14, 6)
    head.weight.data.fill_(1.0)
    stats = EmbeddingStats(7, ALONE)
    stats.update(head.cosines(x), x, torch.arange(14) % 7)
    found = stats.compute()
    assert found["target_cosine"] == pytest.approx(1) and found["wrong_angle"] == pytest.approx(0, abs=1e-3)
    assert found["dead_centers"] == pytest.approx(6 / 7)


def test_seeing_a_batch_reads_nothing_on_the_host():
    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func.name() not in {"aten::_local_scalar_dense", "aten::item", "aten::nonzero"}
            return func(*args, **kwargs or {})

    head, (x, labels) = ArcFace(6, 7), photos()
    stats = EmbeddingStats(7, ALONE)
    with Watch():
        stats.update(head.cosines(x), x, labels)


@pytest.mark.parametrize("centers", [1, 3])
def test_centers_begin_at_the_means_of_their_classes_where_these_have_photos(centers):
    x, labels = photos()
    labels[3] = -1
    batches = [SimpleNamespace(x=x[part], labels=labels[part]) for part in (slice(0, 11), slice(11, 30))]
    means = class_means(lambda batch: batch.x, batches, 7, ALONE)
    whole = ArcFace(6, 7, centers=centers)
    before = whole.weight.detach().clone().unflatten(0, (7, centers))
    init_centers(whole, means)
    after = whole.weight.detach().unflatten(0, (7, centers))
    for label in range(6):
        mean = sum(row / row.norm() for row, other in zip(x.double(), labels.tolist()) if other == label)
        torch.testing.assert_close(F.normalize(after[label, 0], dim=0).double(), mean / mean.norm(), rtol=0, atol=1e-6)
    torch.testing.assert_close(after.norm(dim=2), before.norm(dim=2))
    assert torch.equal(after[6], before[6]) and torch.equal(after[:, 1:], before[:, 1:]), "no photos, other centers"
    shard = ClassShard(7, 1, 2)
    part = ArcFace(6, 7, centers=centers, shard=shard)
    part.weight.data.copy_(shard.own(before.flatten(0, 1)))
    init_centers(part, means)
    assert torch.equal(part.weight, shard.own(whole.weight))
