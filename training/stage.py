"""One stage of a run before anything is built: its data, and from where to where it trains."""
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace

from arcshard import checkpoint
from arcshard.checkpoint import Checkpoint
from arcshard.config import as_plain, differences
from arcshard.console import UserError
from arcshard.distributed import World
from loader import GrowingSize, Loader, tune
from loader.draws import SeedChannel, hash64
from loader.mixture import mixed
from shards import Dataset, splits
from training import log
from training.config import MAY_CHANGE, OF_DATA, ONLY, Stages, TrainConfig, check_classes
from training.schedules import passed
from training.step import micro_batches

# What ties a run to its checkpoint: the configuration that it began with, and the stage that it was in.


def as_saved(stages: Stages, name: str) -> dict[str, Any]:
    """The configuration as a checkpoint of stage `name` holds it: of this stage, and of all that have begun."""
    plain = {stage: as_plain(**sections) for stage, sections in stages.items()}
    begun = list(plain)[:list(plain).index(name) + 1]
    return {"stage": name, "config": plain[name], "stages": {stage: plain[stage] for stage in begun}}


def saved_state(out: Path, stages: Stages, allow_changed_data: bool) -> Checkpoint | None:
    """The checkpoint to continue from, if there is one. Raises UserError if it belongs to another configuration."""
    if not (out / checkpoint.NAME).exists():
        return None
    saved = checkpoint.load(out)
    begun = list(saved.stages)
    if list(stages)[:len(begun)] != begun:
        raise UserError(f"a run continues with the stages that it has begun, but those in {out} are {', '.join(begun)} "
                        f"and now there are {', '.join(stages)}: only later stages may change")
    may_change = MAY_CHANGE | (OF_DATA if allow_changed_data else set())
    ours = as_saved(stages, begun[-1])["stages"]
    changed = [change if name == ONLY else f"stages.{name}: {change}" for name in begun
               for change in differences(saved.stages[name], ours[name], may_change)]
    if changed:
        raise UserError(f"a run continues with the configuration it began with, but in {out} {'; '.join(changed)}: "
                        "give the old values, or another --out")
    return saved


def owes_validation(out: Path, saved: Checkpoint, epoch: int, finished: bool) -> bool:
    """Whether the step that the checkpoint ends with also ends an epoch, which nobody validated."""
    position = saved.loader["position"]
    ended = finished or passed(position - saved.config["train"]["global_batch"], position, epoch)
    lines = log.read(out, log.VALIDATION)
    return ended and all(line["position"] != saved.position for line in lines)


@dataclass
class StageRun:
    """Positions and epochs are the stage's own, counted in images."""

    name: str
    args: Namespace
    """Options of the stage."""
    c: TrainConfig
    """Those of its training, with its seed."""
    world: World
    dataset: Dataset
    """Its train split."""
    has_val: bool
    loader: Loader
    """Its position is where the stage stands."""
    class_sizes: np.ndarray
    """Photos of each class that may be drawn, (C,)."""
    before: int
    """Images of earlier stages."""
    continues: bool
    """Whether it began in an earlier process."""
    owes_validation: bool
    """Whether that one ended between a checkpoint and its validation."""

    @property
    def epoch(self) -> int:
        """Images of an epoch."""
        return self.loader.stream.epoch_size

    @property
    def total(self) -> int:
        """Images of the whole stage."""
        return math.ceil(self.c.epochs * self.epoch)

    @property
    def trained(self) -> bool:
        return self.loader.position >= self.total

    @property
    def epochs_done(self) -> float:
        return self.loader.position / self.epoch

    @property
    def position(self) -> int:
        """Images that the run has seen."""
        return self.before + self.loader.position

    @property
    def title(self) -> str:
        """How sentences begin that are about this stage."""
        return "" if self.name == ONLY else f"stage {self.name}: "


def open_stage(run: Namespace, name: str, saved: Checkpoint | None, world: World) -> StageRun:
    """The stage, from its own checkpoint, that of the stage before, or from the start.

    Raises UserError for data that cannot be trained on, or that belong to another run.
    """
    args, names = run.stages[name], list(run.stages)
    c = replace(args.train, seed=stage_seed(args.train.seed, names.index(name)))
    dataset = Dataset(args.data, "train", args.cache)
    loader = make_loader(dataset, args, c, world, selection=args.select)
    stage = StageRun(name, args, c, world, dataset, "val" in splits(args.data, args.cache), loader,
                    images_of_classes(loader), before=0, continues=bool(saved and saved.stage == name),
                    owes_validation=False)
    if saved and stage.continues:
        loader.load_state_dict(saved.loader, run.allow_changed_data)
        stage.owes_validation = stage.has_val and owes_validation(Path(run.out), saved, stage.epoch, stage.trained)
    if saved:
        stage.before = saved.position - loader.position
    return stage


def tune_loader(stage: StageRun) -> None:
    """Find the fastest resources of this rank's loader, say them, and let the stage's other loaders have them."""
    loader = stage.loader
    stage.world.log(f"fastest on this rank: {tune(loader)[0]}")
    stage.args.loader = replace(stage.args.loader, num_threads=loader.num_threads,
                                 hw_decoder_load=loader.hw_decoder_load)


def check_stages(to_do: dict[str, Namespace], saved: Checkpoint | None, world: World) -> None:
    """Raise UserError for what would otherwise come up when the stages before it have taken their days."""
    before: list[str] | None = None
    for name, args in to_do.items():
        micro_batches(args.train, world)
        if args.train.batchnorm == "synced" and world.device.type != "cuda":
            raise UserError("train.batchnorm synced needs CUDA, but this run is on the CPU: use learned or frozen")
        ids = mixed(Dataset(args.data, "train", args.cache), args.select).landmark_ids
        if before is not None:
            check_classes(name, args.stage.classes, before, ids)
        before = saved.landmark_ids if saved and name == saved.stage else ids


def make_loader(dataset: Dataset, args: Namespace, c: TrainConfig, world: World, **options: Any) -> Loader:
    """This rank's loader of the stage's images. Raises UserError if the ranks do not divide the global batch."""
    if c.global_batch % world.size:
        raise UserError(f"train.global_batch must be a multiple of the number of ranks; got {c.global_batch} for "
                        f"{world.size} ranks: choose {c.global_batch // world.size * world.size or world.size}")
    size = c.size if c.first_size is None else GrowingSize(c.first_size, c.size, c.size_warmup * c.epochs)
    return Loader(dataset, batch_size=c.global_batch // world.size, size=size, seed=c.seed, rank=world.rank,
                  world_size=world.size, device="gpu" if world.device.type == "cuda" else "cpu",
                  view=args.view, num_threads=args.loader.num_threads, hw_decoder_load=args.loader.hw_decoder_load,
                  **options)


def images_ahead(stage: StageRun, count: int) -> Iterator[Any]:
    """The batches of at least so many images that training draws next, which it will draw all the same."""
    ahead = make_loader(stage.dataset, stage.args, stage.c, stage.world, selection=stage.args.select)
    ahead.position = stage.loader.position
    return itertools.islice(ahead, math.ceil(count / ahead.global_batch))


def images_of_classes(loader: Loader) -> np.ndarray:
    """Photos of each class that may be drawn, (C,). Raises UserError if one has no landmark: no head can learn it."""
    labels = loader.dataset.labels[loader.stream.rows()]
    without = int((labels < 0).sum())
    if without:
        raise UserError(f"a train split must have a landmark for each photo; in {loader.dataset.path} {without:,} have "
                        "none: name them in select.block, or pack again with another split for them")
    return np.bincount(labels, minlength=loader.dataset.num_classes)


def stage_seed(seed: int, number: int) -> int:
    """A stage is another seed: its stream and its views are its own; those of the first are the run's."""
    return seed if number == 0 else int(hash64(seed, SeedChannel.STAGE, number)[0] >> 1)
