"""Train an ArcFace embedding on a packed dataset.

python train.py --config configs/demo.yaml --data data/demo/dataset --out runs/demo
torchrun --nproc-per-node 8 train.py --config configs/gldv2-r50.yaml --data data/gldv2 --out runs/r50
python train.py --config configs/demo.yaml --data ... --out runs/lr --train.lr 0.2

--dry-run prints what the run will do, tries two steps of each stage for memory and speed, and writes nothing.

The same command continues a run that was stopped, on any number of ranks. SIGTERM and Ctrl-C write a checkpoint within
one step, on several GPUs within ten. Exit codes: 0 trained, 2 a mistake in options or data, 3 another rank was lost,
128 + the signal's number after a signal; torchrun itself exits with 1 for all but 0.
"""
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from arcshard import checkpoint, distributed
from arcshard.checkpoint import Checkpoint
from arcshard.console import command_of, progress, run, stop_signals
from arcshard.distributed import World
from arcshard.files import report_full_disk
from arcshard.memory import keep_freed_memory
from loader.draws import hash64
from model.licenses import license_of
from training.checkpointer import Checkpointer
from training.config import RunConfig, read_arguments
from training.log import NAME, VALIDATION, watched
from training.monitor import CollapseMonitor
from training.optim import set_lr
from training.plan import Plan, make_plan, pace, table
from training.schedules import lr_factor, margin_at
from training.stage import StageRun, check_stages, images_ahead, open_stage, owes_validation, saved_state, tuned
from training.state import TrainState, build_state, parallel, update


def main() -> int:
    config = read_arguments(sys.argv[1:], __doc__)
    keep_freed_memory()
    world = distributed.start(config.device)
    try:
        if config.dry_run:
            with distributed.lost_rank_is_a_sentence(world.rank):
                return train(config, world)
        with (distributed.lost_rank_is_a_sentence(world.rank), made(config.out, world), world.lock(config.out),
              report_full_disk(config.out)):
            return train(config, world)
    finally:
        distributed.stop()


@contextmanager
def made(folder: Path, world: World) -> Iterator[None]:
    """Make the run's folder, and remove it again if nothing was written into it, as options or data were refused."""
    if not world.is_main or folder.is_dir():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def train(config: RunConfig, world: World) -> int:
    """Train the stages of a run that are left; returns the exit code."""
    saved, names = saved_state(config), list(config.stages)
    to_do = names[names.index(saved.stage) if saved else 0:]
    loaders = check_stages({name: config.stages[name] for name in to_do}, saved, world)
    if not saved and (said := license_of(config.model.backbone, config.model.weights)):
        world.log(said)
    plan = make_plan(config, loaders, world)
    world.log(table(plan, config.out, saved.position if saved else 0, world))
    if config.dry_run:
        for name in to_do:
            try_stage(config, plan, name, saved if saved and saved.stage == name else None, world)
        return 0
    code = train_stage(config, plan, to_do[0], saved, world)
    for name in to_do[1:]:
        if code:
            break
        world.wait()  # until the main rank has written the checkpoint
        code = train_stage(config, plan, name, checkpoint.load(config.out), world)
    if not code:
        held = [name for name in (checkpoint.NAME, NAME, VALIDATION) if (config.out / name).exists()]
        world.log(f"{config.out} holds {', '.join(held)}; next:\n  "
                  + command_of("evaluate", "--run", config.out, "--data", config.stages[names[-1]].data))
    return code


def try_stage(config: RunConfig, plan: Plan, name: str, saved: Checkpoint | None, world: World) -> None:
    """Take two steps of a stage, from its own checkpoint or as if it were the first, and say how fast the second was.

    Class centers do not begin at the means of their photos, which would take a pass over them.
    """
    own = config.stages[name]
    short = replace(config, stages={**config.stages, name: replace(own, head=replace(own.head, init_images=1))})
    stage = open_stage(short, name, saved, world)
    state = build_state(stage, saved)
    forward, ended = parallel(state, lambda: next(images_ahead(stage, 1))), []
    for _, batch in zip(range(2), stage.loader):
        follow_schedules(stage, state)
        loss, _ = update(state, forward, batch, stage.loader.position)
        float(loss)  # waits for the device
        ended.append(time.perf_counter())
    rate = stage.loader.global_batch / (ended[1] - ended[0])
    world.log(f"{stage.title}two steps tried: " + pace({name: plan[name]}, name, stage.loader.position, rate, world))


def train_stage(config: RunConfig, plan: Plan, name: str, saved: Checkpoint | None, world: World) -> int:
    """Train one stage from the checkpoint of its own or of the stage before; returns the exit code."""
    stage = open_stage(config, name, saved, world)
    validate_first = owes_validation(stage, saved)
    if stage.trained and not validate_first:
        if name == list(config.stages)[-1]:
            world.log(f"{config.out} is already trained: {stage.run_position:,} images")
        return 0
    with stage.log.paused():
        if stage.config.loader.tune:
            stage = tuned(stage)
        state = build_state(stage, saved)
        stage.log.truncate_after(stage.run_position)
    if saved and world.is_main:  # a kill may have come between a checkpoint and this
        checkpoint.keep(config.out, saved.position, stage.c.keep)
    with watched(stage.log, stage.c.watch), stop_signals() as received:
        if validate_first:
            with stage.log.paused():
                Checkpointer(stage, state).validate()
        ended = "trained" if stage.trained else take_steps(stage, plan, state, received)
    if ended == "stopped":
        world.log(f"stopped after {stage.run_position:,} images; the same command continues")
        return 128 + (received or [signal.SIGTERM])[0]
    world.log(f"{stage.title}trained {stage.run_position:,} images")
    return 0


def take_steps(stage: StageRun, plan: Plan, state: TrainState, received: list[int]) -> Literal["trained", "stopped"]:
    """The loop; returns why it ended. received: signals that asked to stop."""
    c, loader, world, log = stage.c, stage.loader, stage.world, stage.log
    forward = parallel(state, lambda: next(images_ahead(stage, 1)))
    checkpointer, monitor, first = Checkpointer(stage, state), CollapseMonitor(stage, state.step), loader.position
    with progress(total=stage.steps * loader.global_batch, initial=first, unit="images", delay=0,
                  what=(stage.title or "train").removesuffix(": "), disable=not world.is_main) as bar:
        for batch in loader:
            start, end = loader.position - loader.global_batch, loader.position
            lr, margin = follow_schedules(stage, state)
            loss, bad = update(state, forward, batch, end)

            if start == first:
                distributed.set_timeout(c.rank_timeout)
            bar.update(end - start)
            log.count(loss, bad, batch)
            stage.bad_steps.note(bad)
            if state.updates % c.log_every == 0 or stage.trained:
                stage.bad_steps.check(state.updates, stage.run_position, stage=stage.name)
                collapsed_loss = monitor.collapsed_loss()
                log.line(state.updates, stage.run_position, stage.epochs_done, stage=stage.name, lr=lr, margin=margin,
                         collapsed_loss=collapsed_loss, **(state.scale.figures() if state.scale else {}))
                bar.set_postfix(loss=f"{log.loss:.3f}", waited=f"{log.wait_share:.1%}", refresh=False)
                if log.lines == 2:  # the first has what only the beginning takes
                    world.log(stage.title + pace(plan, stage.name, end, log.images_per_s, world))
                if warning := monitor.warning(log.loss, collapsed_loss, batch):
                    world.log(warning)
            stopping = state.updates % world.ask_every == 0 and world.any(bool(received))
            with log.paused():
                checkpointer.after_step(start, stopping)
            if stopping:
                return "stopped"
            if stage.trained:
                break
    return "trained"


def follow_schedules(stage: StageRun, state: TrainState) -> tuple[float, float]:
    """Set all that depends on the position of the step to come; returns learning rate and margin."""
    c, loader, head = stage.c, stage.loader, state.step.head
    # schedules look at the first image of the global batch, so that its size does not move them
    start = loader.position - loader.global_batch
    seen, epochs = start / stage.total, start / stage.epoch
    lr, margin = c.lr * lr_factor(seen, epochs, c), margin_at(seen, epochs, stage.config.head)
    set_lr(state.optimizer, lr)
    head.set_margin(margin)
    head.set_key(int(hash64(stage.seed, start)[0] >> 1))
    if c.batchnorm_frozen_from is not None:
        state.set_mode(epochs)
    # dropout and stochastic depth follow the position too: a resumed run draws what an unbroken one draws
    torch.manual_seed(int(hash64(stage.seed, start, stage.world.rank)[0] >> 1))
    return lr, margin


if __name__ == "__main__":
    run(main)
