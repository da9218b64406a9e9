"""What a stage leaves on disk beside its log, and the work that is due when an epoch ends."""
import math
from pathlib import Path

import torch
from jsonargparse import Namespace

from arcshard import checkpoint
from model.batchnorm import batchnorms, estimate_statistics
from model.stats import EmbeddingStats
from shards import Dataset
from training import log as training_log
from training.config import sections_of
from training.log import VALIDATION, MetricsLog
from training.monitor import BadSteps
from training.optim import whole_state
from training.schedules import passed
from training.stage import Course, as_saved, images_ahead, make_loader
from training.state import Learner
from training.step import Step, autocast, float_buffers, train_mode

# What is measured at an epoch's end, cheaply; evaluate.py has the real figures.


@torch.inference_mode()
def validate(course: Course, step: Step) -> dict[str, float | None]:
    """Figures of the val split's photos among the class centers; leaves eval mode.

    val_recall@1: share whose nearest center is their own, a cheap stand-in for evaluate.py's. The others are those of
    `EmbeddingStats`, over the photos with a landmark; None where there is none.
    """
    args, c, world = course.args, course.c, course.world
    head, right, seen = step.head.whole(), 0, 0
    stats = EmbeddingStats(len(course.class_sizes), world)
    step.eval()
    for batch in make_loader(Dataset(args.data, "val", args.cache), args, c, world, train=False):
        with autocast(c, world):
            embeddings = step.embedder(batch.images, batch.jitter)
        cosines, known = head.cosines(embeddings), batch.labels >= 0
        stats.update(cosines[known], embeddings[known], batch.labels[known])
        right += int((cosines.argmax(1) == batch.labels).sum())
        seen += len(batch.labels)
    right_of_all, seen_of_all = world.sum(right, seen)
    figures = {"val_recall@1": right_of_all / seen_of_all, **stats.compute()}
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


class Keeper:
    """Checkpoints and validations of a stage. All ranks must call its methods together.

    Args:
        run: what `read_arguments` returned.
        bad_steps: asked before a checkpoint is written, so that none comes of a bad update.
    """

    def __init__(self, run: Namespace, course: Course, learner: Learner, log: MetricsLog, bad_steps: BadSteps):
        self.run, self.out, self.course, self.learner = run, Path(run.out), course, learner
        self.log, self.bad_steps = log, bad_steps

    def after_step(self, start: int, stopping: bool) -> None:
        """Do what is due after the step of the images from `start` to the loader's position.

        stopping: a signal asked to end.
        """
        course, c, position = self.course, self.course.c, self.course.loader.position
        epoch_ended = course.trained or passed(start, position, course.epoch)
        if epoch_ended and c.precise_batchnorm:
            self.estimate_statistics()
        if course.trained or stopping or passed(start, position, c.checkpoint_every * course.epoch) or (
                c.best != "none" and epoch_ended):
            self.save()
        if course.has_val and epoch_ended and not stopping:
            self.validate()

    def save(self) -> None:
        """Write a checkpoint of the run after the latest update."""
        course, learner, head = self.course, self.learner, self.learner.step.head
        self.bad_steps.check(learner.updates, course.position, stage=course.name)
        # on all ranks, as the line before
        unlogged, moments, weights = self.log.state_dict(), whole_state(learner.optimizer, head), learner.step.weights()
        averages = learner.average and learner.average.module.weights()
        if course.world.is_main:
            checkpoint.save(self.out, {
                **as_saved(sections_of(self.run), course.name), "packing": course.dataset.manifest["packing"],
                "landmark_ids": course.loader.dataset.landmark_ids, "step": learner.updates,
                "position": course.position, "log": unlogged, "loader": course.loader.state_dict(),
                "optimizer": moments, **weights, "ema": averages,
                "loss_scale": learner.scale and learner.scale.state_dict()})
            checkpoint.keep(self.out, course.position, course.c.keep)

    def validate(self) -> None:
        """Add a line to RUN/validation.jsonl, and let the checkpoint be the best one if its figure is."""
        course, c = self.course, self.course.c
        course.world.share(float_buffers(self.learner.evaluated))
        figures = validate(course, self.learner.evaluated)
        train_mode(self.learner.step, c, course.epochs_done)
        earlier = [line for line in training_log.read(self.out, VALIDATION) if line["stage"] == course.name]
        if c.best != "none" and course.world.is_main and all(figures[c.best] > line[c.best] for line in earlier):
            checkpoint.keep_as_best(self.out)
        self.log.append(VALIDATION, stage=course.name, step=self.learner.updates, position=course.position,
                        epoch=course.epochs_done, **figures)

    def estimate_statistics(self) -> None:
        """Compute the running statistics of what learns them anew, over the images that come next."""
        course, c, step, world = self.course, self.course.c, self.learner.evaluated, self.course.world
        train_mode(step, c, course.epochs_done)
        layers = [layer for layer in batchnorms(step) if layer.training]
        step.eval()
        for layer in layers:
            layer.train()
        batches = images_ahead(course, c.precise_batchnorm)
        with autocast(c, world):
            estimate_statistics(layers, (step.embedder(batch.images, batch.jitter) for batch in batches), world.total)
        step.eval()
        train_mode(self.learner.step, c, course.epochs_done)
        self.learner.buffers.keep()
