"""Train an ArcFace embedding on a packed dataset.

python train.py --config configs/demo.yaml --data data/demo/dataset --out runs/demo
torchrun --nproc-per-node 8 train.py --config configs/gldv2-r50.yaml --data data/gldv2 --out runs/r50
python train.py --config configs/demo.yaml --data ... --out runs/lr --train.lr 0.2

The same command continues a run that stopped, whatever the number of ranks, and says so when it is finished.
SIGTERM and Ctrl-C write a checkpoint within a step, on several GPUs within ten. Exit codes: 0 trained, 2 a mistake in
what was given, 3 another rank was lost, 128 + the signal's number if one stopped it; torchrun's own is 1 for all but 0.
"""
import signal
import sys
from pathlib import Path

import torch
from jsonargparse import Namespace

from arcshard import checkpoint, distributed
from arcshard.checkpoint import Checkpoint
from arcshard.console import progress, run, stop_signals
from arcshard.distributed import World
from arcshard.memory import keep_freed_memory
from loader.draws import hash64
from training.checkpointer import Checkpointer
from training.config import read_arguments, sections_of
from training.log import MetricsLog, watched
from training.monitor import BadSteps, CollapseMonitor
from training.optim import set_lr
from training.schedules import lr_factor, margin_at
from training.stage import StageRun, check_stages, images_ahead, open_stage, saved_state, tune_loader
from training.state import TrainState, build_state, parallel, update


def main() -> int:
    args = read_arguments(sys.argv[1:], __doc__)
    keep_freed_memory()
    world = distributed.start(args.train.device)
    try:
        with distributed.lost_rank_is_a_sentence(world.rank):
            return train(args, world)
    finally:
        distributed.stop()


def train(args: Namespace, world: World) -> int:
    """The stages of a run that are left; returns the exit code."""
    out, names = Path(args.out), list(args.stages)
    saved = saved_state(out, sections_of(args), args.allow_changed_data)
    to_do = names[names.index(saved.stage) if saved else 0:]
    check_stages({name: args.stages[name] for name in to_do}, saved, world)
    code = train_stage(args, to_do[0], saved, world)
    for name in to_do[1:]:
        if code:
            break
        world.wait()  # the checkpoint is written
        code = train_stage(args, name, checkpoint.load(out), world)
    return code


def train_stage(run: Namespace, name: str, saved: Checkpoint | None, world: World) -> int:
    """Train one stage from the checkpoint of its own or of the stage before; returns the exit code."""
    out, stage = Path(run.out), open_stage(run, name, saved, world)
    if stage.trained and not stage.owes_validation:
        if name == list(run.stages)[-1]:
            world.log(f"{out} is already trained: {stage.position:,} images")
        return 0
    if stage.args.loader.tune:
        tune_loader(stage)
    state = build_state(stage, saved)
    out.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(out, stage.position, world, saved.log if saved else None)
    bad_steps = BadSteps(log, stage.loader, stage.c.on_bad_loss)
    checkpointer = Checkpointer(run, stage, state, log, bad_steps)
    if saved and world.is_main:  # a kill may have come between a checkpoint and this
        checkpoint.keep(out, saved.position, stage.c.keep)
    with watched(log, stage.c.watch), stop_signals() as received:
        if stage.owes_validation:
            with log.paused():
                checkpointer.validate()
        stopped = not stage.trained and take_steps(stage, state, checkpointer, log, bad_steps, received)
    if stopped:
        world.log(f"stopped after {stage.position:,} images; the same command continues")
        return 128 + (received or [signal.SIGTERM])[0]
    world.log(f"{stage.title}trained {stage.position:,} images; the run is in {out}")
    return 0


def take_steps(stage: StageRun, state: TrainState, checkpointer: Checkpointer, log: MetricsLog, bad_steps: BadSteps,
               received: list[int]) -> bool:
    """The loop, up to the stage's end or a signal; returns whether it was a signal."""
    c, loader, world, step = stage.c, stage.loader, stage.world, state.step
    forward = parallel(step, c, world, lambda: next(images_ahead(stage, 1)))
    monitor, first = CollapseMonitor(stage, step), loader.position
    with progress(total=stage.total, initial=first, unit="images", what=(stage.title or "train").removesuffix(": "),
                  disable=not world.is_main) as bar:
        for batch in loader:
            # schedules look at the first image of the global batch, so that its size does not move them
            start, position = loader.position - loader.global_batch, loader.position
            lr = c.lr * lr_factor(start / stage.total, c.warmup, c.schedule)
            margin = margin_at(start / stage.total, stage.args.head.margin, stage.args.head.margin_warmup)
            set_lr(state.optimizer, lr)
            step.head.set_margin(margin)
            step.head.set_key(int(hash64(c.seed, start)[0] >> 1))
            if c.batchnorm_frozen_from is not None:
                state.set_mode(c, world, start / stage.epoch)

            # dropout and stochastic depth follow the position too: a resumed run draws what an unbroken one draws
            torch.manual_seed(int(hash64(c.seed, start, world.rank)[0] >> 1))
            loss, bad = update(state, forward, batch, position, c, world)

            if start == first:
                distributed.set_timeout(c.rank_timeout)
            bar.update(position - start)
            log.count(loss, bad, batch)
            bad_steps.note(bad)
            if state.updates % c.log_every == 0 or stage.trained:
                bad_steps.check(state.updates, stage.position, stage=stage.name)
                collapsed = monitor.collapsed_loss()
                log.line(state.updates, stage.position, stage.epochs_done, stage=stage.name, lr=lr,
                         margin=margin, collapsed_loss=collapsed, **(state.scale.figures() if state.scale else {}))
                bar.set_postfix(loss=f"{log.loss:.3f}", waited=f"{log.wait_share:.1%}")
                if said := monitor.warning(log.loss, collapsed, batch):
                    world.log(said)
            stopping = state.updates % world.ask_every == 0 and world.any(bool(received))
            with log.paused():
                checkpointer.after_step(start, stopping)
            if stopping:
                return True
            if stage.trained:
                break
    return False


if __name__ == "__main__":
    run(main)
