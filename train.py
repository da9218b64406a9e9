"""Train an ArcFace embedding on a packed dataset.

python train.py --config configs/demo.yaml --data data/demo/dataset --out runs/demo
torchrun --nproc-per-node 8 train.py --config configs/gldv2-r50.yaml --data data/gldv2 --out runs/r50
python train.py --config configs/demo.yaml --data ... --out runs/lr --train.lr 0.2

The same command continues a run that stopped, whatever the number of ranks, and says so when it is finished.
SIGTERM and Ctrl-C write a checkpoint within a step. Exit codes: 0 trained, 2 a mistake in what was given, 3 another
rank was lost, 128 + the signal's number if one stopped it; torchrun's own is 1 for all but 0.
"""
import itertools
import math
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from jsonargparse import Namespace
from timm.layers import convert_sync_batchnorm
from torch.nn.parallel import DistributedDataParallel

from arcshard import checkpoint, distributed, metrics_log, stages, yardsticks
from arcshard.accumulation import autocast, backward, micro_batches
from arcshard.bad_steps import BadSteps, KeptBuffers
from arcshard.config import ConfigParser
from arcshard.console import UserError, progress, run
from arcshard.continuing import Stages, as_saved, owes_validation, saved_state
from arcshard.distributed import World
from arcshard.ema import AveragedWeights
from arcshard.memory import keep_freed_memory
from arcshard.metrics_log import VALIDATION, MetricsLog
from arcshard.optimizers import build_optimizer, clip, set_lr, step_unless
from arcshard.schedules import lr_factor, margin_at, passed
from arcshard.stages import ONLY, check_classes, merge, options, split_flags
from arcshard.stop_signals import stop_signals
from arcshard.train_config import TrainConfig
from loader import GrowingSize, Loader, LoaderConfig, Selection, View, tune
from loader.hashing import hash64
from loader.mixture import mixed
from model import HeadConfig, ModelConfig, build_embedder, build_head
from model.batchnorm import batchnorms, correct_momentum, estimate_statistics
from model.handover import take_over
from model.sharded_state import keep_out_of_ddp, own_state, whole_state
from model.step import Step, train_mode
from preprocess.label_map import label_map
from shards import CacheConfig, Dataset, splits

SECTIONS = {"model": ModelConfig, "head": HeadConfig, "select": Selection, "view": View, "cache": CacheConfig,
            "loader": LoaderConfig, "train": TrainConfig}
STAGE_STREAM = 500  # channel of randomness, beside the loader's


def main() -> int:
    args = read_arguments(sys.argv[1:])
    keep_freed_memory()
    world = distributed.start(args.train.device)
    try:
        with distributed.lost_rank_is_a_sentence(world.rank):
            return train(args, world)
    finally:
        distributed.stop()


def read_arguments(words: list[str]) -> Namespace:
    """The command line; `stages` maps names to Namespaces of the same sections, with `data` and `stage`."""
    words, changes = split_flags(words)
    parser = ConfigParser(prog="train.py", description=__doc__)
    parser.add_argument("--config", action="config", help="YAML preset; later flags win over it")
    parser.add_argument("--data", type=str, required=True, help="dataset that make_shards.py wrote: folder or s3://…")
    parser.add_argument("--out", type=str, required=True, help="folder of this run")
    parser.add_argument("--allow-changed-data", action="store_true",
                        help="continue on another dataset or selection, of as many classes")
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    parser.add_argument("--stages", type=dict[str, dict[str, Any]], default={}, help=stages.__doc__)
    given = parser.read(words)
    args = parser.build(given.as_dict() | {"config": None})
    args.stages = {}
    for name, diff in merge(given.stages, changes).items() or [(ONLY, {})]:
        own, sections = options(name, diff, {name: given[name].as_dict() for name in SECTIONS})
        args.stages[name] = parser.build(given.as_dict() | sections | {"config": None},
                                         "" if name == ONLY else f"stages.{name}: ")
        args.stages[name].stage, args.stages[name].data = own, own.data or args.data
    return args


def train(args: Namespace, world: World) -> int:
    out, names = Path(args.out), list(args.stages)
    saved = saved_state(out, sections_of(args), args.allow_changed_data)
    to_do = names[names.index(saved["stage"]) if saved else 0:]
    check_stages({name: args.stages[name] for name in to_do}, saved, world)
    code = train_stage(args, to_do[0], saved, world)
    for name in to_do[1:]:
        if code:
            break
        world.any(False)  # the checkpoint is written
        code = train_stage(args, name, checkpoint.load(out), world)
    return code


def check_stages(to_do: dict[str, Namespace], saved: dict[str, Any] | None, world: World) -> None:
    """Raise UserError for what would otherwise come up when the stages before it have taken their days."""
    before: list[str] | None = None
    for name, args in to_do.items():
        micro_batches(args.train, world)
        if args.train.batchnorm == "synced" and world.device.type != "cuda":
            raise UserError("train.batchnorm synced needs CUDA, and this run is on the CPU: say learned or held")
        ids = mixed(Dataset(args.data, "train", args.cache), args.select).landmark_ids
        if before is not None:
            check_classes(name, args.stage.classes, before, ids)
        before = saved["landmark_ids"] if saved and name == saved["stage"] else ids


def train_stage(run: Namespace, name: str, saved: dict[str, Any] | None, world: World) -> int:
    """Train one stage from the checkpoint of its own or of the stage before; position and epoch are the stage's own."""
    args, out = run.stages[name], Path(run.out)
    c: TrainConfig = replace(args.train, seed=stage_seed(args.train.seed, list(run.stages).index(name)))
    dataset, continues = Dataset(args.data, "train", args.cache), bool(saved and saved["stage"] == name)
    loader = make_loader(dataset, args, c, world, selection=args.select)
    class_sizes, epoch = images_of_classes(loader), loader.stream.epoch_size
    total = math.ceil(c.epochs * epoch)  # images
    parts = micro_batches(c, world)
    if saved and continues:
        loader.load_state_dict(saved["loader"], run.allow_changed_data)
    before = saved["position"] - loader.position if saved else 0  # images of earlier stages
    trained = loader.position >= total
    # a kill between a checkpoint and its validation leaves the latter to us
    has_val = "val" in splits(args.data, args.cache)
    owed = bool(saved and continues and has_val and owes_validation(out, saved, epoch, trained))
    if trained and not owed:
        if name == list(run.stages)[-1]:
            say(world, f"{out} is already trained: {before + loader.position:,} images")
        return 0

    if args.loader.tune:
        say(world, f"fastest on this rank: {tune(loader)[0]}")
        args.loader = replace(args.loader, num_threads=loader.num_threads, hw_decoder_load=loader.hw_decoder_load)

    number, step, optimizer = build(args, c, loader, class_sizes, saved, continues, world)
    average = averaged(step, c, saved if continues else None)
    evaluated = average.module if average else step
    out.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(out, before + loader.position, world, saved and saved["log"])
    bad_steps, buffers = BadSteps(log, loader, c.on_bad_loss), KeptBuffers(step)

    def save() -> None:
        position = before + loader.position
        bad_steps.check(number, position, stage=name)  # on all ranks, as the next one
        unlogged, moments, weights = log.state_dict(), whole_state(optimizer, step.head), step.weights()
        averages = average and average.module.weights()
        if world.is_main:
            checkpoint.save(out, {
                **as_saved(sections_of(run), name), "packing": dataset.manifest["packing"],
                "landmark_ids": loader.dataset.landmark_ids, "step": number, "position": position, "log": unlogged,
                "loader": loader.state_dict(), "optimizer": moments, **weights, "ema": averages})
            checkpoint.keep(out, position, c.keep)

    def validation() -> None:
        value = validate(args, evaluated, world)
        train_mode(step, c, loader.position / epoch)
        earlier = [line for line in metrics_log.read(out, VALIDATION) if line["stage"] == name]
        if c.best != "none" and world.is_main and all(value > line[c.best] for line in earlier):
            checkpoint.keep_as_best(out)
        log.append(VALIDATION, stage=name, step=number, position=before + loader.position,
                   epoch=loader.position / epoch, **{"val_recall@1": value})

    if saved and world.is_main:  # a kill may have come between the two lines above
        checkpoint.keep(out, saved["position"], c.keep)
    correct_momentum(step, parts)
    train_mode(step, c, loader.position / epoch)
    forward = parallel(step, c, world)
    recent: list[float] = []  # losses of the log's lines, until one sentence has said that they are stuck
    bar = progress(total=total, initial=loader.position, unit="images", what=name if name != ONLY else "train",
                   disable=not world.is_main)
    first = loader.position
    with bar, stop_signals() as received:
        if owed:
            with log.paused():
                validation()
        for batch in () if trained else loader:
            # schedules look at the first image of the global batch, so that its size does not move them
            start, position = loader.position - loader.global_batch, loader.position
            lr = c.lr * lr_factor(start / total, c.warmup, c.schedule)
            margin = margin_at(start / total, args.head.margin, args.head.margin_warmup)
            set_lr(optimizer, lr)
            step.head.set_margin(margin)
            step.head.draw(int(hash64(c.seed, start)[0] >> 1))
            if c.batchnorm_frozen_from is not None:
                train_mode(step, c, start / epoch)

            # dropout and stochastic depth follow the position too: a resumed run draws what an unbroken one draws
            torch.manual_seed(int(hash64(c.seed, start, world.rank)[0] >> 1))
            loss = backward(forward, batch, parts, c, world)
            bad = clip(step.parameters(), step.head.spread, c.clip)
            step_unless(bad, optimizer)
            buffers.settle(bad)
            if average:
                average.update(loader.global_batch, position)

            if start == first:
                distributed.set_timeout(c.rank_timeout)
            number += 1
            bar.update(position - start)
            log.count(loss, bad, len(batch.labels), batch.wait, batch.replaced)
            bad_steps.note(bad)
            finished = position >= total
            if number % c.log_every == 0 or finished:
                bad_steps.check(number, before + position, stage=name)
                cost = step.head.cost_of_one(class_sizes)
                level = yardsticks.collapsed(len(class_sizes), float(step.head.scale), cost, step.head.smoothing)
                log.line(number, before + position, position / epoch, stage=name, lr=lr, margin=margin,
                         collapsed_loss=level)
                bar.set_postfix(loss=f"{log.loss:.3f}")
                recent.append(log.loss)
                if yardsticks.is_stuck(recent, level):
                    say(world, yardsticks.stuck_sentence(log.loss, level))
                    recent.clear()
            stopping = world.any(bool(received))
            with log.paused():
                epoch_ended = finished or passed(start, position, epoch)
                if epoch_ended and c.precise_batchnorm:
                    estimate(evaluated, args, c, loader, world)
                    train_mode(step, c, position / epoch)
                    buffers.settle(torch.zeros_like(bad))
                if finished or stopping or passed(start, position, c.checkpoint_every * epoch) or (
                        c.best != "none" and epoch_ended):
                    save()
                if has_val and epoch_ended and not stopping:
                    validation()
            if stopping:
                say(world, f"stopped after {before + position:,} images; the same command continues")
                return 128 + (received or [signal.SIGTERM])[0]
            if finished:
                break
    said = f"trained {before + loader.position:,} images; the run is in {out}"
    say(world, said if name == ONLY else f"stage {name}: {said}")
    return 0


def sections_of(run: Namespace) -> Stages:
    return {name: {section: args[section] for section in ("stage", *SECTIONS)} for name, args in run.stages.items()}


def make_loader(dataset: Dataset, args: Namespace, c: TrainConfig, world: World, **options: Any) -> Loader:
    if c.global_batch % world.size:
        raise UserError(f"train.global_batch must be a multiple of the number of ranks; got {c.global_batch} for "
                        f"{world.size} ranks: choose {c.global_batch // world.size * world.size or world.size}")
    size = c.size if c.first_size is None else GrowingSize(c.first_size, c.size, c.size_warmup * c.epochs)
    return Loader(dataset, batch_size=c.global_batch // world.size, size=size, seed=c.seed, rank=world.rank,
                  world_size=world.size, device="gpu" if world.device.type == "cuda" else "cpu",
                  view=args.view, num_threads=args.loader.num_threads, hw_decoder_load=args.loader.hw_decoder_load,
                  **options)


def images_of_classes(loader: Loader) -> np.ndarray:
    """Photos of each class that may be drawn, (C,). Raises UserError if one has no landmark: no head can learn it."""
    labels = loader.dataset.labels[loader.stream.rows()]
    without = int((labels < 0).sum())
    if without:
        raise UserError(f"a train split must have a landmark for each photo; in {loader.dataset.path} {without:,} have "
                        "none: name them in select.block, or pack again with another split for them")
    return np.bincount(labels, minlength=loader.dataset.num_classes)


def build(args: Namespace, c: TrainConfig, loader: Loader, class_sizes: np.ndarray, saved: dict[str, Any] | None,
          continues: bool, world: World) -> tuple[int, Step, torch.optim.Optimizer]:
    """Updates done so far, the step's module and its optimizer: new from the seed, as saved, or as a stage takes over.

    A stage takes over the weights of the one before, but not its optimizer's state.
    """
    torch.manual_seed(c.seed)  # the same weights on every rank
    embedder = build_embedder(replace(args.model, weights="none") if saved else args.model)
    head = build_head(args.head, embedder.dim, len(class_sizes), class_sizes, world)
    step = Step(embedder, head).to(world.device)
    if c.batchnorm == "synced":
        step = convert_sync_batchnorm(step)
    step.embedder.backbone.requires_grad_(c.frozen == "none")
    optimizer = build_optimizer(step, embedder.backbone, c)
    if not saved:
        return 0, step, optimizer
    if continues:
        if len(saved["head"]["weight"]) != step.head.num_centers:
            raise UserError("a run continues with as many classes as it began with; its head has "
                            f"{len(saved['head']['weight']):,} centres, and this dataset needs "
                            f"{step.head.num_centers:,}: give another --out")
        step.load_weights(saved)
        optimizer.load_state_dict(own_state(saved["optimizer"], optimizer, step.head))
    else:
        step.embedder.load_state_dict(saved["embedder"])
        if args.stage.classes != "new":
            before = saved["landmark_ids"]
            take_over(step.head, saved["head"], len(before), label_map(before, loader.dataset.landmark_ids))
    return saved["step"], step, optimizer


def averaged(step: Step, c: TrainConfig, saved: dict[str, Any] | None) -> AveragedWeights[Step] | None:
    """The average of the step's weights, if the run keeps one."""
    if c.ema is None:
        return None
    average = AveragedWeights(step, c.ema)
    if saved:
        average.module.load_weights(saved["ema"])
    return average


def parallel(step: Step, c: TrainConfig, world: World) -> nn.Module:
    """The step as it is called: compiled on CUDA, gradients averaged over the ranks."""
    on_gpu = world.device.type == "cuda"
    module: Any = torch.compile(step) if on_gpu and c.compile else step
    if world.size > 1:
        keep_out_of_ddp(module, step.head.spread)
        module = DistributedDataParallel(module, device_ids=[world.device.index] if on_gpu else None)
    return module


def estimate(step: Step, args: Namespace, c: TrainConfig, loader: Loader, world: World) -> None:
    """Compute the running statistics of what learns them anew, over the images that come next; leaves eval mode."""
    train_mode(step, c, loader.position / loader.stream.epoch_size)
    layers = [layer for layer in batchnorms(step) if layer.training]
    step.eval()
    for layer in layers:
        layer.train()
    ahead = make_loader(Dataset(args.data, "train", args.cache), args, c, world, selection=args.select)
    ahead.position = loader.position
    batches = itertools.islice(ahead, math.ceil(c.precise_batchnorm / loader.global_batch))
    with autocast(c, world):
        estimate_statistics(layers, (step.embedder(batch.images, batch.jitter) for batch in batches), world.total)
    step.eval()


@torch.inference_mode()
def validate(args: Namespace, step: Step, world: World) -> float:
    """Share of the val split whose nearest class centre is its own: a cheap recall@1; evaluate.py has the real one."""
    head, right, seen = step.head.whole(), 0, 0
    step.eval()
    for batch in make_loader(Dataset(args.data, "val", args.cache), args, args.train, world, train=False):
        with autocast(args.train, world):
            embeddings = step.embedder(batch.images, batch.jitter)
        right += int((head.cosines(embeddings).argmax(1) == batch.labels).sum())
        seen += len(batch.labels)
    right_of_all, seen_of_all = world.sum(right, seen)
    return right_of_all / seen_of_all


def stage_seed(seed: int, number: int) -> int:
    """A stage is another seed: its stream and its views are its own; those of the first are the run's."""
    return seed if number == 0 else int(hash64(seed, STAGE_STREAM, number)[0] >> 1)


def say(world: World, sentence: str) -> None:
    if world.is_main:
        print(sentence, flush=True)


if __name__ == "__main__":
    run(main)
