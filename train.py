"""Train an ArcFace embedding on a packed dataset.

python train.py --config configs/demo.yaml --data data/demo/dataset --out runs/demo
torchrun --nproc-per-node 8 train.py --config configs/gldv2-r50.yaml --data data/gldv2 --out runs/r50
python train.py --config configs/demo.yaml --data ... --out runs/lr --train.lr 0.2

The same command continues a run that stopped, whatever the number of ranks, and says so when it is finished.
SIGTERM and Ctrl-C write a checkpoint within a step; the exit code is then 128 + the signal's number (torchrun's own
is 1).
"""
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from jsonargparse import Namespace
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from arcshard import checkpoint, distributed, yardsticks
from arcshard.clipping import clip_grad_norm
from arcshard.config import ConfigParser, as_plain, differences
from arcshard.console import UserError, progress, run
from arcshard.distributed import World
from arcshard.memory import keep_freed_memory
from arcshard.metrics_log import MetricsLog
from arcshard.schedules import lr_factor, margin_at
from arcshard.train_config import MAY_CHANGE, OF_DATA, TrainConfig
from loader import Batch, GrowingSize, Loader, Selection, View
from loader.hashing import hash64
from model import Embedder, HeadConfig, MarginHead, ModelConfig, build_embedder, build_head
from model.batchnorm import correct_momentum, hold_statistics
from model.sharded_state import keep_out_of_ddp, own_state, whole_state
from shards import Dataset, splits

SECTIONS = {"model": ModelConfig, "head": HeadConfig, "select": Selection, "view": View, "train": TrainConfig}


class Step(nn.Module):
    """Everything that a training step computes forward, in one module for DDP and torch.compile."""

    def __init__(self, embedder: Embedder, head: MarginHead):
        super().__init__()
        self.embedder, self.head = embedder, head

    def forward(self, images: Tensor, jitter: Tensor, labels: Tensor) -> Tensor:
        return self.head(self.embedder(images, jitter), labels)


def main() -> int:
    args = read_arguments()
    keep_freed_memory()
    world = distributed.start(args.train.device)
    try:
        return train(args, world)
    finally:
        distributed.stop()


def read_arguments() -> Namespace:
    parser = ConfigParser(prog="train.py", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML preset; later flags win over it")
    parser.add_argument("--data", type=str, required=True, help="dataset folder that make_shards.py wrote")
    parser.add_argument("--out", type=str, required=True, help="folder of this run")
    parser.add_argument("--allow-changed-data", action="store_true",
                        help="continue on another dataset or selection, of as many classes")
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    return parser.read()


def train(args: Namespace, world: World) -> int:
    c: TrainConfig = args.train
    config = as_plain(**{name: args[name] for name in SECTIONS})
    out, dataset = Path(args.out), Dataset(args.data, split="train")
    saved = saved_state(out, config, args.allow_changed_data)
    loader = make_loader(dataset, c, world, view=args.view, selection=args.select)
    class_sizes, epoch = images_of_classes(loader), loader.stream.epoch_size
    total = math.ceil(c.epochs * epoch)  # images
    parts = micro_batches(c, world)
    if saved:
        loader.load_state_dict(saved["loader"], args.allow_changed_data)
    if loader.position >= total:
        say(world, f"{out} is already trained: {loader.position:,} images")
        return 0

    number, step, optimizer = build(args, class_sizes, saved, world)
    out.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(out, loader.position, world, saved and saved["log"])

    def save() -> None:
        unlogged = log.state_dict()  # on all ranks, as the next line; refuses a loss that is not finite
        head, moments = step.head.whole().state_dict(), whole_state(optimizer, step.head)
        if world.is_main:
            checkpoint.save(out, {
                "config": config, "packing": dataset.manifest["packing"], "step": number, "log": unlogged,
                "loader": loader.state_dict(), "optimizer": moments,
                "embedder": step.embedder.state_dict(), "head": head})

    correct_momentum(step, parts)
    train_mode(step, c)
    forward, has_val = parallel(step, c, world), "val" in splits(args.data)
    recent: list[float] = []  # losses of the log's lines, until one sentence has said that they are stuck
    bar = progress(total=total, initial=loader.position, unit="images", what="train", disable=not world.is_main)
    with bar, stop_signals() as received:
        for batch in loader:
            # schedules look at the first image of the global batch, so that its size does not move them
            start, position = loader.position - loader.global_batch, loader.position
            lr = c.lr * lr_factor(start / total, c.warmup, c.schedule)
            margin = margin_at(start / total, args.head.margin, args.head.margin_warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_share"]
            step.head.set_margin(margin)
            step.head.draw(int(hash64(c.seed, start)[0] >> 1))

            # dropout and stochastic depth follow the position too: a resumed run draws what an unbroken one draws
            torch.manual_seed(int(hash64(c.seed, start, world.rank)[0] >> 1))
            loss = backward(forward, batch, parts, c, world)
            clip_grad_norm(step.parameters(), step.head.spread, c.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

            number += 1
            bar.update(position - start)
            log.count(loss, len(batch.labels), batch.wait, batch.replaced)
            finished = position >= total
            if number % c.log_every == 0 or finished:
                cost = step.head.cost_of_one(class_sizes)
                level = yardsticks.collapsed(len(class_sizes), float(step.head.scale), cost,
                                             step.head.smoothing)
                log.line(number, position, position / epoch, lr=lr, margin=margin, collapsed_loss=level)
                bar.set_postfix(loss=f"{log.loss:.3f}")
                recent.append(log.loss)
                if yardsticks.is_stuck(recent, level):
                    say(world, stuck_sentence(log.loss, level))
                    recent.clear()
            stopping = world.any(bool(received))
            with log.paused():
                if finished or stopping or passed(start, position, c.checkpoint_every * epoch):
                    save()
                if has_val and (finished or passed(start, position, epoch)) and not stopping:
                    log.validation(step=number, position=position, epoch=position / epoch,
                                   **{"val_recall@1": validate(args, step, world)})
            if finished:
                break
            if stopping:
                say(world, f"stopped after {position:,} images; the same command continues")
                return 128 + (received or [signal.SIGTERM])[0]
    say(world, f"trained {position:,} images; the run is in {out}")
    return 0


def saved_state(out: Path, config: dict[str, Any], allow_changed_data: bool) -> dict[str, Any] | None:
    """The checkpoint to continue from, if there is one. Raises UserError if it belongs to another configuration."""
    if not (out / checkpoint.NAME).exists():
        return None
    saved = checkpoint.load(out)
    changed = differences(saved["config"], config, MAY_CHANGE | (OF_DATA if allow_changed_data else set()))
    if changed:
        raise UserError(f"a run continues with the configuration it began with, but in {out} {'; '.join(changed)}: "
                        "give the old values, or another --out")
    return saved


def make_loader(dataset: Dataset, c: TrainConfig, world: World, **options: Any) -> Loader:
    if c.global_batch % world.size:
        raise UserError(f"train.global_batch must be a multiple of the number of ranks; got {c.global_batch} for "
                        f"{world.size} ranks: choose {c.global_batch // world.size * world.size or world.size}")
    size = c.size if c.first_size is None else GrowingSize(c.first_size, c.size, c.size_warmup * c.epochs)
    return Loader(dataset, batch_size=c.global_batch // world.size, size=size, seed=c.seed, rank=world.rank,
                  world_size=world.size, device="gpu" if world.device.type == "cuda" else "cpu",
                  num_threads=c.num_threads, **options)


def images_of_classes(loader: Loader) -> np.ndarray:
    """Photos of each class that may be drawn, (C,). Raises UserError if one has no landmark: no head can learn it."""
    labels = loader.dataset.labels[loader.stream.rows()]
    without = int((labels < 0).sum())
    if without:
        raise UserError(f"a train split must have a landmark for each photo; in {loader.dataset.path} {without:,} have "
                        "none: name them in select.block, or pack again with another split for them")
    return np.bincount(labels, minlength=loader.dataset.num_classes)


def build(args: Namespace, class_sizes: np.ndarray, saved: dict[str, Any] | None, world: World
          ) -> tuple[int, Step, torch.optim.Optimizer]:
    """Updates done so far, the step's module and its optimizer: new from the seed, or as saved."""
    torch.manual_seed(args.train.seed)  # the same weights on every rank
    embedder = build_embedder(replace(args.model, weights="none") if saved else args.model)
    head = build_head(args.head, embedder.dim, len(class_sizes), class_sizes, world)
    step = Step(embedder, head).to(world.device)
    optimizer = build_optimizer(step, args.train, world)
    if saved:
        if len(saved["head"]["weight"]) != step.head.num_centers:
            raise UserError("a run continues with as many classes as it began with; its head has "
                            f"{len(saved['head']['weight']):,} centres, and this dataset needs "
                            f"{step.head.num_centers:,}: give another --out")
        step.embedder.load_state_dict(saved["embedder"])
        step.head.load_state_dict(saved["head"])
        optimizer.load_state_dict(own_state(saved["optimizer"], optimizer, step.head))
    return saved["step"] if saved else 0, step, optimizer


def build_optimizer(step: Step, c: TrainConfig, world: World) -> torch.optim.Optimizer:
    groups, fused = parameter_groups(step, c), world.device.type == "cuda"
    if c.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(c.momentum, 0.999), fused=fused)
    return torch.optim.SGD(groups, momentum=c.momentum, nesterov=c.momentum > 0, fused=fused)


def parameter_groups(step: Step, c: TrainConfig) -> list[dict[str, Any]]:
    """Four groups: backbone or not, weight decay (matrices and kernels) or none (biases, normalisation, GeM)."""
    backbone = list(step.embedder.backbone.parameters())
    of_backbone = {id(p) for p in backbone}
    rest = [p for p in step.parameters() if id(p) not in of_backbone]
    return [{"params": [p for p in parameters if p.requires_grad and (p.ndim > 1) == decays], "lr": c.lr * share,
             "lr_share": share, "weight_decay": c.weight_decay if decays else 0.0}
            for share, parameters in ((c.backbone_lr, backbone), (1.0, rest)) for decays in (True, False)]


def parallel(step: Step, c: TrainConfig, world: World) -> nn.Module:
    """The step as it is called: compiled on CUDA, gradients averaged over the ranks."""
    on_gpu = world.device.type == "cuda"
    module: Any = torch.compile(step) if on_gpu and c.compile else step
    if world.size > 1:
        keep_out_of_ddp(module, step.head.spread)
        module = DistributedDataParallel(module, device_ids=[world.device.index] if on_gpu else None)
    return module


def micro_batches(c: TrainConfig, world: World) -> int:
    """How many a rank's part of the global batch is cut into."""
    part = c.global_batch // world.size
    micro_batch = c.micro_batch or part
    if part % micro_batch:
        raise UserError(f"train.micro_batch must divide each rank's part of the global batch; got {micro_batch} for "
                        f"{part} images: choose {math.gcd(micro_batch, part)}, or another global_batch")
    return part // micro_batch


def backward(forward: Any, batch: Batch, parts: int, c: TrainConfig, world: World) -> Tensor:
    """Add up the gradients of the batch, micro-batch by micro-batch; returns its mean loss, on the device."""
    total = torch.zeros((), device=world.device)
    pieces = zip(*(whole.chunk(parts) for whole in (batch.images, batch.jitter, batch.labels)))
    for number, piece in enumerate(pieces, start=1):
        # The ranks average their gradients once, with the last micro-batch.
        with forward.no_sync() if world.size > 1 and number < parts else nullcontext():
            with torch.autocast(world.device.type, torch.bfloat16, enabled=use_amp(c, world)):
                loss = forward(*piece) / parts
            loss.backward()
        total += loss.detach()
    return total


def train_mode(step: Step, c: TrainConfig) -> None:
    step.train()
    if c.batchnorm == "held":
        hold_statistics(step.embedder.backbone)


def use_amp(c: TrainConfig, world: World) -> bool:
    return c.amp and world.device.type == "cuda"


@torch.inference_mode()
def validate(args: Namespace, step: Step, world: World) -> float:
    """Share of the val split whose nearest class centre is its own: a cheap recall@1; evaluate.py has the real one."""
    head, right, seen = step.head.whole(), 0, 0
    step.eval()
    for batch in make_loader(Dataset(args.data, split="val"), args.train, world, train=False, view=args.view):
        with torch.autocast(world.device.type, torch.bfloat16, enabled=use_amp(args.train, world)):
            embeddings = step.embedder(batch.images, batch.jitter)
        right += int((head.cosines(embeddings).argmax(1) == batch.labels).sum())
        seen += len(batch.labels)
    train_mode(step, args.train)
    right_of_all, seen_of_all = world.sum(right, seen)
    return right_of_all / seen_of_all


def passed(start: float, end: float, every: float) -> bool:
    """Whether a positive multiple of `every` lies in (start, end]."""
    return end // every > start // every


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGTERM and SIGINT inside the block, instead of the process dying of them."""
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: received.append(number))
              for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stuck_sentence(loss: float, level: float) -> str:
    return (f"the loss rests at {loss:.2f}, and {level:.2f} is that of embeddings which all point one way: if it stays "
            "there nothing is learnt, so lower train.lr, let the margin grow (head.margin_warmup), or see whether "
            "model.weights were loaded")


def say(world: World, sentence: str) -> None:
    if world.is_main:
        print(sentence, flush=True)


if __name__ == "__main__":
    run(main)
