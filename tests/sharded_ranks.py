"""A rank of test_sharded_heads.py: it takes its photos and classes, and writes what it found."""
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import torch

from arcshard import distributed
from model import AdaFace, ArcFace, CosFace
from model.sharding import ClassShard
from model.stats import EmbeddingStats, class_means, init_centers
from training.optim import LossScale, gradient_norm, own_state, whole_state

CLASSES, DIM, BATCH = 11, 8, 12  # for 2 and for 3 ranks
CASES = {
    "arcface": (ArcFace, BATCH, {}),
    "many": (ArcFace, 420, {"smoothing": 0.1}),  # more than a chunk holds
    "sub-centers": (ArcFace, BATCH, {"centers": 3, "smoothing": 0.2, "sizes": True, "weights": True}),
    "cosface": (CosFace, BATCH, {"focal": 2.0, "weights": True}),
    "adaface": (AdaFace, BATCH, {"learn_scale": True, "smoothing": 0.1}),
    "all options": (ArcFace, BATCH, {"easy": True, "straight_through": True, "learn_scale": True, "focal": 1.0,
                                     "smoothing": 0.1, "centers": 2, "sizes": True, "weights": True}),
    "one class left": (ArcFace, BATCH, {"negatives": 0.01}),
}
OPTIMIZERS = {"sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
              "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1)}


def head_of(name, shard=None):
    """float64, the same numbers for any shard."""
    kind, _, options = CASES[name]
    options, g = dict(options), torch.Generator().manual_seed(1)
    factors = torch.rand(CLASSES, generator=g) + 0.2 if options.pop("sizes", False) else None
    weights = torch.rand(CLASSES, generator=g) + 0.5 if options.pop("weights", False) else None
    torch.manual_seed(0)
    return kind(DIM, CLASSES, 30.0, 0.4, margin_factors=factors, class_weights=weights, shard=shard, **options).double()


def photos(name):
    g = torch.Generator().manual_seed(2)
    return (3 * torch.randn(CASES[name][1], DIM, generator=g).double(),
            torch.randint(CLASSES, (CASES[name][1],), generator=g))


def loss_and_gradients(head, x, labels):
    """Loss and gradients; the ranks' weight whole."""
    x = x.clone().requires_grad_()
    loss = head(x, labels)
    (0.5 * loss).backward()  # as of one of two micro-batches
    scale = None if head.log_scale is None else head.log_scale.grad
    return loss.detach(), x.grad, head.shard.whole(head.weight.grad), scale


def train(head, body, optimizer, x, labels, world, steps):
    """Steps of a layer and the head, clipped, the layer's gradient averaged as DDP does; their weights."""
    part = slice(world.rank * len(x) // world.size, (world.rank + 1) * len(x) // world.size)
    for _ in range(steps):
        head(body(x[part]), labels[part]).backward()
        if world.size > 1:
            torch.distributed.all_reduce(body.weight.grad.div_(world.size))
        weights = [body.weight, head.weight]
        torch.nn.utils.clip_grads_with_norm_(weights, 0.3, gradient_norm(weights, head.sharded_parameters))
        optimizer.step()
        optimizer.zero_grad()
    return body.weight.detach(), head.whole().weight.detach()


def new_run(make, world, saved=None):
    """Body, head and optimizer, from the seed or from what `train_and_save` returned."""
    head = head_of("arcface", ClassShard(CLASSES, world.rank, world.size))
    body = torch.nn.Linear(DIM, DIM, bias=False).double()
    optimizer = make([{"params": [body.weight]}, {"params": [head.weight]}])
    if saved:
        body.load_state_dict(saved["body"])
        head.load_state_dict(saved["head"])
        optimizer.load_state_dict(own_state(deepcopy(saved["optimizer"]), optimizer, head))
    return head, body, optimizer


def train_and_save(make, world, saved=None):
    head, body, optimizer = new_run(make, world, saved)
    train(head, body, optimizer, *photos("arcface"), world, 3)
    return {"head": head.whole().state_dict(), "body": body.state_dict(), "optimizer": whole_state(optimizer, head)}


def seen(world):
    """What the stats read of this rank's photos, and the centers that begin at all ranks' class means."""
    head = head_of("sub-centers", ClassShard(CLASSES, world.rank, world.size))
    x, labels = (whole.chunk(world.size)[world.rank] for whole in photos("many"))
    stats = EmbeddingStats(CLASSES, world)
    stats.update(head.whole().cosines(x), x, labels)
    batches = [SimpleNamespace(x=part, labels=of_part) for part, of_part in zip(x.split(50), labels.split(50))]
    init_centers(head, class_means(lambda batch: batch.x, batches, CLASSES, world).double())
    return stats.compute(), head.whole().weight.detach()


def scaled(world):
    """Verdicts on two bad gradients, and the factor: in the first only the last rank's loss is not finite."""
    scale, losses = LossScale(world), [torch.nan if world.rank == world.size - 1 else 1.0, 1.0]
    return [bool(scale.update(torch.tensor(True), torch.tensor(loss))) for loss in losses], float(scale.value)


def main(out):
    world = distributed.start("cpu")
    found = {"unequal": [len(head_of("arcface", ClassShard(CLASSES, world.rank, world.size)).weight)]}
    for name in CASES:
        x, labels = photos(name)
        part = slice(world.rank * len(x) // world.size, (world.rank + 1) * len(x) // world.size)
        head = head_of(name, ClassShard(CLASSES, world.rank, world.size))
        head.set_key(5)
        found[name] = loss_and_gradients(head, x[part], labels[part])
        found[f"{name}, state"] = head.whole().state_dict()
    x, labels = (whole.chunk(world.size)[world.rank] for whole in photos("adaface"))
    # float32, as in training: what torch 2.11 compiles does not move a float64 scalar of the CPU, here AdaFace's norms.
    head = head_of("adaface", ClassShard(CLASSES, world.rank, world.size)).float()
    found["compiled"] = loss_and_gradients(torch.compile(head, backend="aot_eager", fullgraph=True), x.float(), labels)
    found["compiled, state"] = head.whole().state_dict()
    found["seen"], found["scaled"] = seen(world), scaled(world)
    found["shared"] = [torch.full((2, 3), float(world.rank)), torch.tensor(float(world.rank))]
    world.share(found["shared"])
    for name, make in OPTIMIZERS.items():
        found[name] = train_and_save(make, world)
        alone = torch.load(out / f"{name}.pt")
        found[f"{name}, continued"] = train_and_save(make, world, alone)
    torch.save(found, out / f"{world.size}-{world.rank}.pt")
    distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
