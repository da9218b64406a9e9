"""One stage of a run before its network is built: its options, its data, and where it stands."""
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint
from arcshard.config import differences
from arcshard.console import UserError
from arcshard.distributed import World
from loader import GrowingSize, Loader, tune
from loader.draws import SeedChannel, hash64
from shards import Dataset, splits
from training.config import (
    ONLY,
    RunConfig,
    StageConfig,
    TrainConfig,
    check_classes,
    may_change,
    with_new_options,
)
from training.log import VALIDATION, BadSteps, MetricsLog, read
from training.schedules import passed
from training.trial import check_network


@dataclass(frozen=True)
class StageRun:
    """A stage of a run. Positions and epochs are the stage's, counted in images, unless the name says run."""

    name: str
    run: RunConfig
    config: StageConfig
    seed: int
    """Of this stage's order and views; config.train.seed is the run's."""
    world: World
    dataset: Dataset
    """Its train split."""
    has_val: bool
    loader: Loader
    """Its position is where the stage stands."""
    class_sizes: np.ndarray
    """Photos of each class that may be drawn, (C,)."""
    images_before: int
    """Images of earlier stages."""
    continues: bool
    """Whether it began in an earlier process."""
    log: MetricsLog
    bad_steps: BadSteps

    @property
    def c(self) -> TrainConfig:
        return self.config.train

    @property
    def epoch(self) -> int:
        """Images of an epoch."""
        return self.loader.stream.epoch_size

    @property
    def total(self) -> int:
        """Images of the whole stage."""
        return math.ceil(self.c.epochs * self.epoch)

    @property
    def steps(self) -> int:
        """Of the whole stage."""
        return math.ceil(self.total / self.loader.global_batch)

    @property
    def trained(self) -> bool:
        return self.loader.position >= self.total

    @property
    def epochs_done(self) -> float:
        return self.loader.position / self.epoch

    @property
    def run_position(self) -> int:
        """Images that the run has seen."""
        return self.images_before + self.loader.position

    @property
    def title(self) -> str:
        """How sentences begin that are about this stage."""
        return title_of(self.name)


def title_of(stage: str) -> str:
    """How sentences begin that are about this stage."""
    return "" if stage == ONLY else f"stage {stage}: "


def open_stage(run: RunConfig, name: str, saved: Checkpoint | None, world: World) -> StageRun:
    """The stage, to continue from its own checkpoint, or to begin after that of the stage before, or anew.

    Raises UserError for data that cannot be trained on, or that belong to another run.
    """
    config = run.stages[name]
    seed = stage_seed(config.train.seed, list(run.stages).index(name))
    dataset = Dataset(config.data, "train", config.cache)
    loader = make_loader(dataset, config, seed, world, selection=config.select)
    continues = saved is not None and saved.stage == name
    if saved and continues:
        with checkpoint.fitting(run.out):
            loader.load_state_dict(saved.loader, run.allow_changed_data)
    log = MetricsLog(run.out, world, saved.log if saved else None)
    return StageRun(name, run, config, seed, world, dataset, "val" in splits(config.data, config.cache), loader,
                    images_of_classes(loader), saved.position - loader.position if saved else 0, continues, log,
                    BadSteps(log, loader, config.train.on_bad_loss))


def stage_seed(seed: int, number: int) -> int:
    """A stage is another seed: its stream and its views are its own; those of the first are the run's."""
    return seed if number == 0 else int(hash64(seed, SeedChannel.STAGE, number)[0] >> 1)


def make_loader(dataset: Dataset, config: StageConfig, seed: int, world: World, **options: Any) -> Loader:
    """This rank's loader of the stage's images. Raises UserError if the ranks do not divide the global batch."""
    c = config.train
    if c.global_batch % world.size:
        raise UserError(f"train.global_batch is not a multiple of the number of ranks: {c.global_batch} for "
                        f"{world.size} ranks; use {c.global_batch // world.size * world.size or world.size}")
    size = c.size if c.first_size is None else GrowingSize(c.first_size, c.size, c.size_warmup * c.epochs)
    return Loader(dataset, batch_size=c.global_batch // world.size, size=size, seed=seed, rank=world.rank,
                  world_size=world.size, device="gpu" if world.device.type == "cuda" else "cpu", view=config.view,
                  num_threads=config.loader.num_threads, hw_decoder_load=config.loader.hw_decoder_load, **options)


def images_ahead(stage: StageRun, count: int) -> Iterator[Any]:
    """The batches of at least so many images that training draws next, which it will draw all the same."""
    ahead = make_loader(stage.dataset, stage.config, stage.seed, stage.world, selection=stage.config.select)
    ahead.position = stage.loader.position
    return itertools.islice(ahead, math.ceil(count / ahead.global_batch))


def tuned(stage: StageRun) -> StageRun:
    """The stage with the fastest threads and decoder of this rank, for its other loaders too; prints them."""
    loader = stage.loader
    stage.world.log(f"fastest on this rank: {tune(loader)[0]}")
    fastest = replace(stage.config.loader, num_threads=loader.num_threads, hw_decoder_load=loader.hw_decoder_load)
    return replace(stage, config=replace(stage.config, loader=fastest))


def images_of_classes(loader: Loader) -> np.ndarray:
    """Photos of each class that may be drawn, (C,). Raises UserError if a head cannot learn them."""
    labels = loader.dataset.labels[loader.stream.rows()]
    without = int((labels < 0).sum())
    if without:
        raise UserError(f"{without:,} photos to train on in {loader.dataset.path} have no landmark: name them in "
                        "select.block, or pack again with another split for them")
    sizes = np.bincount(labels, minlength=loader.dataset.num_classes)
    if np.count_nonzero(sizes) < 2:
        raise UserError(f"the photos to train on in {loader.dataset.path} are of one class, whose loss is 0 from the "
                        "start: give two classes or more")
    return sizes


# Continuing: what ties a run to its checkpoint is the configuration of the stages that have begun.


def saved_state(run: RunConfig) -> Checkpoint | None:
    """The checkpoint to continue from, if there is one. Raises UserError if it belongs to another configuration."""
    if not (run.out / checkpoint.NAME).exists():
        return None
    saved = checkpoint.load(run.out)
    begun = list(saved.stages)
    if list(run.stages)[:len(begun)] != begun:
        raise UserError(f"the run in {run.out} has begun the stages {', '.join(begun)}, but now they are "
                        f"{', '.join(run.stages)}: only later stages may change")
    changed = [change if name == ONLY else f"stages.{name}: {change}" for name in begun
               for change in differences(with_new_options(saved.stages[name]), run.stages[name].as_plain(),
                                         may_change(run.allow_changed_data))]
    if changed:
        raise UserError(f"the configuration differs from that of the run in {run.out}: {'; '.join(changed)}; "
                        "give the old values, or another --out")
    return saved


def owes_validation(stage: StageRun, saved: Checkpoint | None) -> bool:
    """Whether the checkpoint's last update ended an epoch that nobody validated, as a kill came between the two."""
    if saved is None or not stage.continues or not stage.has_val:
        return False
    end = stage.loader.position
    ended = stage.trained or passed(end - saved.config["train"]["global_batch"], end, stage.epoch)
    return ended and all(line["position"] != saved.position for line in read(stage.run.out, VALIDATION))


def check_stages(to_do: dict[str, StageConfig], saved: Checkpoint | None, world: World) -> dict[str, Loader]:
    """A loader of each stage. Raises UserError for what would otherwise come up when stages have taken their days."""
    before: list[str] | None = None
    loaders = {}
    for name, config in to_do.items():
        config.train.micro_batches(world.size)
        check_trained(name, config)
        loader = loaders[name] = make_loader(Dataset(config.data, "train", config.cache), config, config.train.seed,
                                             world, selection=config.select)
        images_of_classes(loader)
        check_updates(name, config.train, loader.stream.epoch_size, begun=saved is not None and saved.stage == name)
        if config.train.batchnorm == "synced" and world.device.type != "cuda":
            raise UserError("train.batchnorm synced needs CUDA, but this run is on the CPU: use learned or frozen")
        ids = loader.dataset.landmark_ids
        if before is not None:
            check_classes(name, config.stage.classes, before, ids)
        before = saved.landmark_ids if saved and name == saved.stage else ids
    check_network([*to_do.values()], world)
    return loaders


def check_trained(name: str, config: StageConfig) -> None:
    """Raise UserError if backbone and head are frozen and the neck has nothing to learn, or the neck has a PCA."""
    if config.model.pca_dim:
        raise UserError(f"{title_of(name)}model.pca_dim is {config.model.pca_dim}, which is fitted after training: "
                        "leave it out, and run python -m training generalize on what train.py writes")
    if {"backbone", "head"} <= {*config.train.frozen_parts} and config.model.neck == "none" and (
            config.model.pooling != "gem"):
        raise UserError(f"{title_of(name)}train.frozen {' and '.join(config.train.frozen_parts)} leaves nothing to "
                        f"train, as model.neck is none and model.pooling {config.model.pooling}: leave out one of them")


def check_updates(name: str, c: TrainConfig, epoch: int, begun: bool) -> None:
    """Raise UserError if the stage has too few images for one update, or for one that learns.

    epoch: images of an epoch. begun: whether an earlier process began the stage.
    """
    images = math.ceil(c.epochs * epoch)
    if c.global_batch > max(images, epoch):
        raise UserError(f"{title_of(name)}train.global_batch is {c.global_batch}: give at most {max(images, epoch)}, "
                        "the images that there are")
    if images <= c.global_batch and c.warmup > 0 and not begun:
        raise UserError(f"{title_of(name)}the only update has learning rate 0, as train.warmup is {c.warmup:g} and "
                        f"train.global_batch {c.global_batch} holds all {images} images: give a smaller "
                        "train.global_batch, more train.epochs, or train.warmup 0")
