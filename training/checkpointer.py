"""Checkpoints, and the work at an epoch's end: validation and recomputed BatchNorm statistics."""
import math

import torch

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint
from arcshard.console import rate_text
from model.batchnorm import batchnorms, estimate_statistics
from model.stats import EmbeddingStats
from shards import Dataset
from training import nearest_photo
from training.log import VALIDATION, read
from training.optim import whole_state
from training.schedules import passed
from training.stage import StageRun, images_ahead, make_loader
from training.state import TrainState
from training.step import Step, autocast, float_buffers, train_mode


@torch.inference_mode()
def validate(stage: StageRun, step: Step) -> dict[str, float | None]:
    """Figures of the val split's photos among the class centers; leaves eval mode.

    val_recall@1: share whose nearest center is their own, a cheap stand-in for evaluate.py's. The others are those of
    `EmbeddingStats`, over the photos with a landmark; None where there is none. With a train.best that needs them also
    those of `nearest_photo`.
    """
    config, c, world = stage.config, stage.c, stage.world
    head, right, seen = step.head.whole(), 0, 0
    stats = EmbeddingStats(len(stage.class_sizes), world)
    step.eval()
    for batch in make_loader(Dataset(config.data, "val", config.cache), config, stage.seed, world, train=False):
        with autocast(c, world):
            embeddings = step.embedder(batch.images, batch.jitter)
        cosines, known = head.cosines(embeddings), batch.labels >= 0
        stats.update(cosines[known], embeddings[known], batch.labels[known])
        right += int((cosines.argmax(1) == batch.labels).sum())
        seen += len(batch.labels)
    right_of_all, seen_of_all = world.sum(right, seen)
    figures = {"val_recall@1": right_of_all / seen_of_all, **stats.compute()}
    if c.best in nearest_photo.FIGURES:
        figures |= nearest_photo.figures(stage, step)
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


class Checkpointer:
    """Writes the checkpoints and validations of a stage. All ranks must call its methods together."""

    def __init__(self, stage: StageRun, state: TrainState):
        self.stage, self.state, self.out = stage, state, stage.run.out

    def after_step(self, start: int, stopping: bool) -> None:
        """Do what is due after the step of the images from `start` to the loader's position.

        stopping: a signal asked to end.
        """
        stage, c, end = self.stage, self.stage.c, self.stage.loader.position
        epoch_ended = stage.trained or passed(start, end, stage.epoch)
        if epoch_ended and c.precise_batchnorm:
            self.estimate_statistics()
        if stage.trained or stopping or passed(start, end, c.checkpoint_every * stage.epoch) or (
                c.best != "none" and epoch_ended):
            self.save()
        figures = self.validate() if stage.has_val and epoch_ended and not stopping else {}
        if epoch_ended:
            stage.world.log(self.epoch_line(figures))

    def epoch_line(self, figures: dict[str, float | None]) -> str:
        """What the epoch that just ended has come to, by the log's last line and the figures of the validation."""
        stage, c, log = self.stage, self.stage.c, self.stage.log
        epoch = f"{c.epochs if stage.trained else int(stage.epochs_done):g}"
        shown = [f"{name} {value:.4f}" for name, value in figures.items()
                 if name in ("val_recall@1", c.best) and value is not None]
        return ", ".join([f"{stage.title}epoch {epoch} of {c.epochs:g}: loss {log.loss:.3f}", *shown,
                          f"{rate_text(log.images_per_s)} images/s", f"waited {log.wait_share:.1%} for data"])

    def save(self) -> None:
        """Write a checkpoint of the run after the latest update, unless that was a bad one that ends the run."""
        stage, state = self.stage, self.state
        stage.bad_steps.check(state.updates, stage.run_position, stage=stage.name)
        saved = self.checkpoint()
        if stage.world.is_main:
            checkpoint.save(self.out, saved)
            checkpoint.keep(self.out, stage.run_position, stage.c.keep)

    def checkpoint(self) -> Checkpoint:
        """Of the run as it is now."""
        stage, state, stages = self.stage, self.state, list(self.stage.run.stages)
        begun = stages[:stages.index(stage.name) + 1]
        return Checkpoint(
            config=stage.run.stages[stage.name].as_plain(), stage=stage.name,
            stages={name: stage.run.stages[name].as_plain() for name in begun},
            data=stage.dataset.fingerprint, packing=stage.dataset.manifest["packing"],
            landmark_ids=stage.loader.dataset.landmark_ids,
            step=state.updates, position=stage.run_position, log=stage.log.state_dict(),
            loader=stage.loader.state_dict(), optimizer=whole_state(state.optimizer, state.step.head),
            weights=state.step.weights(), average=state.average.module.weights() if state.average else None,
            loss_scale=state.scale.state_dict() if state.scale else None)

    def validate(self) -> dict[str, float | None]:
        """Add a line to RUN/validation.jsonl, and let the checkpoint be the best one if its figure is.

        Returns the figures.
        """
        stage, c = self.stage, self.stage.c
        stage.world.share(float_buffers(self.state.evaluated))
        figures = validate(stage, self.state.evaluated)
        train_mode(self.state.step, c, stage.epochs_done)
        earlier = [line[c.best] for line in read(self.out, VALIDATION)
                   if line.get("stage") == stage.name and c.best in line]
        if c.best != "none" and stage.world.is_main and all(figures[c.best] > value for value in earlier):
            checkpoint.keep_as_best(self.out)
        stage.log.append(VALIDATION, stage=stage.name, step=self.state.updates, position=stage.run_position,
                         epoch=stage.epochs_done, **figures)
        return figures

    def estimate_statistics(self) -> None:
        """Compute anew the running statistics that are not frozen, over the images that come next."""
        stage, c, step, world = self.stage, self.stage.c, self.state.evaluated, self.stage.world
        train_mode(step, c, stage.epochs_done)
        layers = [layer for layer in batchnorms(step) if layer.training]
        step.eval()
        for layer in layers:
            layer.train()
        batches = images_ahead(stage, c.precise_batchnorm)
        with autocast(c, world):
            estimate_statistics(layers, (step.embedder(batch.images, batch.jitter) for batch in batches), world.total)
        step.eval()
        train_mode(self.state.step, c, stage.epochs_done)
        self.state.buffers.keep()
