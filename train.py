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
from typing import Any

import torch
from jsonargparse import Namespace

from arcshard import checkpoint, distributed
from arcshard.console import progress, run, stop_signals
from arcshard.distributed import World
from arcshard.memory import keep_freed_memory
from loader.draws import hash64
from training.checkpointer import Keeper
from training.config import read_arguments, sections_of
from training.log import MetricsLog, watched
from training.monitor import BadSteps, Plateau
from training.optim import set_lr
from training.schedules import lr_factor, margin_at
from training.stage import Course, check_stages, course_of, images_ahead, saved_state, tune_loader
from training.state import Learner, build_learner, parallel, update


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
    to_do = names[names.index(saved["stage"]) if saved else 0:]
    check_stages({name: args.stages[name] for name in to_do}, saved, world)
    code = train_stage(args, to_do[0], saved, world)
    for name in to_do[1:]:
        if code:
            break
        world.any(False)  # the checkpoint is written
        code = train_stage(args, name, checkpoint.load(out), world)
    return code


def train_stage(run: Namespace, name: str, saved: dict[str, Any] | None, world: World) -> int:
    """Train one stage from the checkpoint of its own or of the stage before; returns the exit code."""
    out, course = Path(run.out), course_of(run, name, saved, world)
    if course.trained and not course.owes_validation:
        if name == list(run.stages)[-1]:
            world.say(f"{out} is already trained: {course.position:,} images")
        return 0
    if course.args.loader.tune:
        tune_loader(course)
    learner = build_learner(course, saved)
    out.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(out, course.position, world, saved and saved["log"])
    bad_steps = BadSteps(log, course.loader, course.c.on_bad_loss)
    keeper = Keeper(run, course, learner, log, bad_steps)
    if saved and world.is_main:  # a kill may have come between a checkpoint and this
        checkpoint.keep(out, saved["position"], course.c.keep)
    with watched(log, course.c.watch), stop_signals() as received:
        if course.owes_validation:
            with log.paused():
                keeper.validate()
        stopped = not course.trained and take_steps(course, learner, keeper, log, bad_steps, received)
    if stopped:
        world.say(f"stopped after {course.position:,} images; the same command continues")
        return 128 + (received or [signal.SIGTERM])[0]
    world.say(f"{course.title}trained {course.position:,} images; the run is in {out}")
    return 0


def take_steps(course: Course, learner: Learner, keeper: Keeper, log: MetricsLog, bad_steps: BadSteps,
               received: list[int]) -> bool:
    """The loop, up to the stage's end or a signal; returns whether it was a signal."""
    c, loader, world, step = course.c, course.loader, course.world, learner.step
    forward = parallel(step, c, world, lambda: next(images_ahead(course, 1)))
    plateau, first = Plateau(course, step), loader.position
    with progress(total=course.total, initial=first, unit="images", what=(course.title or "train").removesuffix(": "),
                  disable=not world.is_main) as bar:
        for batch in loader:
            # schedules look at the first image of the global batch, so that its size does not move them
            start, position = loader.position - loader.global_batch, loader.position
            lr = c.lr * lr_factor(start / course.total, c.warmup, c.schedule)
            margin = margin_at(start / course.total, course.args.head.margin, course.args.head.margin_warmup)
            set_lr(learner.optimizer, lr)
            step.head.set_margin(margin)
            step.head.draw(int(hash64(c.seed, start)[0] >> 1))
            if c.batchnorm_frozen_from is not None:
                learner.set_mode(c, world, start / course.epoch)

            # dropout and stochastic depth follow the position too: a resumed run draws what an unbroken one draws
            torch.manual_seed(int(hash64(c.seed, start, world.rank)[0] >> 1))
            loss, bad = update(learner, forward, batch, position, c, world)

            if start == first:
                distributed.set_timeout(c.rank_timeout)
            bar.update(position - start)
            log.count(loss, bad, batch)
            bad_steps.note(bad)
            if learner.updates % c.log_every == 0 or course.trained:
                bad_steps.check(learner.updates, course.position, stage=course.name)
                collapsed = plateau.collapsed()
                log.line(learner.updates, course.position, course.epochs_done, stage=course.name, lr=lr,
                         margin=margin, collapsed_loss=collapsed, **(learner.scale.figures() if learner.scale else {}))
                bar.set_postfix(loss=f"{log.loss:.3f}", waited=f"{log.wait_share:.1%}")
                if said := plateau.sentence(log.loss, collapsed, batch):
                    world.say(said)
            stopping = learner.updates % world.ask_every == 0 and world.any(bool(received))
            with log.paused():
                keeper.after_step(start, stopping)
            if stopping:
                return True
            if course.trained:
                break
    return False


if __name__ == "__main__":
    run(main)
