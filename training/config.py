"""The options of train.py: sections of dataclasses, and stages that differ from the run in some of them."""
import copy
import math
import sys
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from arcshard.checkpoint import Config
from arcshard.config import ConfigParser, as_plain
from arcshard.console import UserError, by_name, expand_home
from arcshard.fields import RUNTIME, WITH_DATA, check
from arcshard.presets import with_stage
from arcshard.untrusted import parse_yaml
from loader import LoaderConfig, Selection, View
from model import HeadConfig, ModelConfig
from shards import CacheConfig


@dataclass(frozen=True)
class TrainConfig:
    """How a stage trains."""

    epochs: float = 10.0
    """Passes over the training split."""
    global_batch: int = field(default=256, metadata=RUNTIME)
    """Images of an update over all ranks; a multiple of their number."""
    micro_batch: int | None = field(default=None, metadata=RUNTIME)
    """Images that a rank passes through the network at a time, a divisor of its part of global_batch; null: the whole
    part. The gradients add up to those of the whole, but BatchNorm sees only these images (see batchnorm)."""
    batchnorm: Literal["learned", "frozen", "synced"] = "learned"
    """learned: normalize by each micro-batch's own statistics; frozen: the backbone by those of its pretrained weights,
    better for fine-tuning (docs/accumulation-and-batchnorm.md), while a neck's BatchNorm still learns; synced: by the
    statistics of all ranks' micro-batches together (torch's SyncBatchNorm, CUDA only)."""
    batchnorm_frozen_from: float | None = None
    """Epoch from which every BatchNorm, also the neck's, normalizes by its running statistics and no longer updates
    them; 0: from the start; null: never."""
    precise_batchnorm: int = 0
    """Training images over which the running statistics are computed anew at each epoch's end, before the checkpoint
    and the validation; 0: keep the running averages."""
    frozen: Literal["none", "backbone", "neck", "head"] | tuple[Literal["backbone", "neck", "head"], ...] = "none"
    """What is not trained, one or several of backbone, neck (with the pooling) and head; the running statistics of its
    BatchNorm stand still too, and a frozen backbone leaves out nothing by drop_path or dropout."""
    size: int = 224
    """Side of the square images, pixels."""
    first_size: int | None = None
    """Side at the beginning, which grows to size in steps of 32 pixels; null: size from the start."""
    size_warmup: float = 0.5
    """Share of the run after which the side has grown to size, if first_size is given."""
    lr: float = 0.05
    """Peak learning rate of neck and head, for this global batch (1st place 2020: 0.05)."""
    backbone_lr: float = 1.0
    """The backbone's learning rate as a share of lr."""
    layer_decay: float = 1.0
    """The learning rate of each layer of the backbone as a share of the next one's; the last has the backbone's. 1: all
    alike. The layers are timm's, for a ViT the patch embedding and each block."""
    warmup: float = 0.1
    """Share of the run in which the learning rate rises from 0 (1st place: one epoch of ten)."""
    schedule: Literal["cosine", "poly", "step", "constant"] = "cosine"
    """What the learning rate does after the warmup: falls by half a cosine, or as (1 - progress)^poly_power; falls in
    steps, see step_epochs; or stays (2nd place 2020: 0.01)."""
    schedule_epochs: float | None = None
    """Epochs in which cosine and poly come to their end, if more than epochs: the run stops before (1st place 2021: 16
    of 40); null: epochs."""
    lr_end: float = 0.0
    """What cosine and poly end at, as a share of lr."""
    poly_power: float = 1.0
    """Exponent of poly; 1: a straight line, as in insightface."""
    step_epochs: tuple[float, ...] = ()
    """Epochs at which step multiplies the learning rate by step_gamma; none given: at the end of each epoch."""
    step_gamma: float = 0.1
    """Factor of step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum (1st and 2nd place), or AdamW (3rd place: Adam, which is AdamW without weight_decay)."""
    momentum: float = 0.9
    """Momentum of SGD, beta1 of AdamW."""
    nesterov: bool = True
    """Whether SGD's momentum is Nesterov's (1st place 2020) or plain (2nd)."""
    weight_decay: float = 1e-4
    """On the parameters of decay_on, an L2 penalty for sgd, decoupled for adamw."""
    decay_on: Literal["weights", "all"] = "weights"
    """What decays. weights: matrices and kernels; all: biases, normalization and GeM's exponent too (1st and 2nd place
    2020)."""
    drop_path: float = 0.0
    """Probability of leaving out the last residual block for an image; earlier blocks are left out in proportion to
    their depth (stochastic depth; 2nd place: 0.2)."""
    clip: float = 5.0
    """Limit of the gradient, in the unit of clip_by (1st place: a norm of 5); .inf: no limit."""
    clip_by: Literal["norm", "value", "adaptive"] = "norm"
    """What clip limits: the norm of the whole gradient; each of its numbers; or the norm of each row of a layer's
    gradient as a share of that row of weights, without the head's (NFNets: 0.01)."""
    ema: float | None = None
    """Half-life, in images, of an average of the weights that is used to validate, evaluate and answer, or a tenth
    of the images seen if that is less; null: no average. An epoch or two is a good value."""
    on_bad_loss: Literal["stop", "skip"] = field(default="stop", metadata=RUNTIME)
    """After a loss or gradient that is not finite: stop the run, or skip that update (RUN/bad-batches.jsonl names its
    photos; 20 such updates in a row stop the run too). The message comes at the next log line."""
    seed: int = 0
    """Determines the initial weights, the order and every random view."""
    device: str = field(default="auto", metadata=RUNTIME)
    """auto (CUDA where there is a GPU), cpu or cuda."""
    amp: Literal["auto", "none", "bf16", "fp16"] = field(default="auto", metadata=RUNTIME)
    """Number format of the network's matrix products; weights and head stay in float32. fp16, for GPUs without bf16,
    scales the loss so that small gradients survive; auto: bf16 on CUDA, none on the CPU."""
    compile: Literal["auto", "always", "never"] = field(default="auto", metadata=RUNTIME)
    """Whether to use torch.compile; auto: on CUDA, if a measurement at the start finds it faster, and never on the CPU,
    where it costs minutes and gains nothing. If it fails, a message says so and training goes on without it."""
    rank_timeout: float = field(default=600.0, metadata=RUNTIME)
    """Seconds after which a rank that does not answer ends the run; half an hour before the first step."""
    log_every: int = field(default=10, metadata=RUNTIME)
    """Updates between two lines of metrics.jsonl."""
    checkpoint_every: float = field(default=1.0, metadata=RUNTIME)
    """Epochs between two checkpoints."""
    watch: Literal["none", "tensorboard", "wandb", "both"] = field(default="none", metadata=RUNTIME)
    """Also send the lines of metrics.jsonl and validation.jsonl to RUN/tensorboard, Weights & Biases (a server, unless
    WANDB_MODE=offline keeps them in RUN/wandb), or both. The x axis is images seen."""
    keep: int = field(default=1, metadata=RUNTIME)
    """Checkpoints to keep: the latest, RUN/checkpoint.pt, and those before it, RUN/checkpoint-<images>.pt."""
    best: Literal["none", "val_recall@1", "val_photo_recall@1", "val_photo_gap"] = field(default="none",
                                                                                         metadata=RUNTIME)
    """Figure of RUN/validation.jsonl whose best checkpoint is kept as well, as RUN/checkpoint-best.pt. val_recall@1:
    by the nearest class center; val_photo_…: by the nearest photo, of at most 1,000 of val among 4,000 of train, which
    takes as long at each epoch's end as training on some 1,700 images."""

    def __post_init__(self) -> None:
        for name in ("epochs", "global_batch", "size", "lr", "log_every", "checkpoint_every", "keep", "rank_timeout",
                     "poly_power", "step_gamma"):
            self._check(0 < getattr(self, name) < math.inf, name, "give a positive number")
        for name in ("backbone_lr", "weight_decay", "precise_batchnorm"):
            self._check(0 <= getattr(self, name) < math.inf, name, "give 0 or more")
        self._check(0 < self.layer_decay <= 1, "layer_decay", "give a share above 0, at most 1")
        for name in ("warmup", "size_warmup"):
            self._check(0 <= getattr(self, name) <= 1, name, "give a share of the run from 0 to 1")
        self._check(len({*self.frozen_parts}) < 3, "frozen", "leave out one of them, or there is nothing to train")
        self._check(0 <= self.lr_end <= 1, "lr_end", "give a share of train.lr from 0 to 1")
        for name in ("momentum", "drop_path"):
            self._check(0 <= getattr(self, name) < 1, name, "give 0 or more, below 1")
        self._check(self.schedule_epochs is None or self.epochs <= self.schedule_epochs < math.inf, "schedule_epochs",
                    f"give train.epochs, which is {self.epochs:g}, or more, or null")
        self._check(all(0 < epoch < math.inf for epoch in self.step_epochs), "step_epochs", "give positive numbers")
        self._check(0 < self.clip, "clip", "give a positive number, or .inf for no limit")
        self._check(self.micro_batch is None or self.micro_batch > 0, "micro_batch",
                    "give a positive number, or null for all images at once")
        self._check(self.batchnorm_frozen_from is None or 0 <= self.batchnorm_frozen_from, "batchnorm_frozen_from",
                    "give an epoch from 0 on, or null for never")
        self._check(self.ema is None or 0 < self.ema < math.inf, "ema",
                    "give a half-life in images above 0, or null for no average")
        self._check(self.first_size is None or 0 < self.first_size <= self.size, "first_size",
                    f"give at most train.size, which is {self.size}, and at least 1, or null")
        self._check(self.device in ("auto", "cpu", "cuda"), "device", "give auto, cpu or cuda")

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """`frozen` as a list, in which "none" is no part."""
        return (self.frozen,) if isinstance(self.frozen, str) else self.frozen

    def _check(self, fits: bool, name: str, remedy: str) -> None:
        check(fits, f"train.{name}", getattr(self, name), remedy)

    def micro_batches(self, ranks: int) -> int:
        """How many micro-batches a rank takes for an update. Raises UserError if its images do not divide evenly."""
        part = self.global_batch // ranks
        micro_batch = self.micro_batch or part
        if part % micro_batch:
            raise UserError(f"train.micro_batch {micro_batch} does not divide the {part} images of a rank's part of "
                            f"the global batch: use {math.gcd(micro_batch, part)}, or another global_batch")
        return part // micro_batch


ONLY = "main"  # the stage of a run that names none
FLAG = "--stages."
OF_THE_RUN = ("model", "seed", "device")  # a stage cannot have its own; seed and device are fields of train
STAGES_HELP = """Stages of a run by name, each with what differs from the run's own options:
stages:
  low: {epochs: 10, size: 256}
  high: {epochs: 6, size: 448, lr: 0.01, head: {margin: 0.4}, data: data/full, classes: remap}
Bare names are those of train; head, select and view are sections of their own; data and classes say what the stage
trains on. --stages.high.lr 0.02 changes one field of one stage. Each stage begins with the weights of the one before, a
new optimizer, and schedules and epochs of its own."""


@dataclass(frozen=True)
class StageOptions:
    """Options that only a stage has."""

    data: str | None = field(default=None, metadata=RUNTIME)
    """Its dataset folder; null: --data."""
    classes: Literal["keep", "remap", "new"] = "keep"
    """The head's centers when the stage begins: keep them, for the same classes; remap them by landmark id, with random
    ones for new classes; or begin with new ones (3rd place 2020)."""

    def __post_init__(self) -> None:
        check(self.data is None or isinstance(self.data, str), "data", self.data, "give a dataset's folder or s3://…")
        check(self.classes in ("keep", "remap", "new"), "classes", self.classes, "give keep, remap or new")


@dataclass(frozen=True)
class StageConfig:
    """All options of a stage: the run's with its own differences in them."""

    data: str
    """Dataset to train on: folder or s3://…"""
    stage: StageOptions
    model: ModelConfig
    head: HeadConfig
    select: Selection
    view: View
    cache: CacheConfig = field(metadata=RUNTIME)
    loader: LoaderConfig = field(metadata=RUNTIME)
    train: TrainConfig

    def as_plain(self) -> Config:
        """The sections as a checkpoint holds them."""
        return as_plain(stage=self.stage, **{name: getattr(self, name) for name in SECTIONS})


@dataclass(frozen=True)
class RunConfig:
    """The command line of train.py."""

    out: Path
    allow_changed_data: bool
    dry_run: bool
    stages: dict[str, StageConfig]
    """By name, in order; a run that names none has one."""

    @property
    def device(self) -> str:
        """auto, cpu or cuda: of all stages."""
        return next(iter(self.stages.values())).train.device

    @property
    def model(self) -> ModelConfig:
        """Of all stages."""
        return next(iter(self.stages.values())).model


SECTIONS: dict[str, Any] = {f.name: f.type for f in fields(StageConfig) if is_dataclass(f.type) and f.name != "stage"}


def may_change(allow_changed_data: bool) -> set[str]:
    """The options, as section.field, that may differ when a run continues."""
    marks = [RUNTIME, WITH_DATA] if allow_changed_data else [RUNTIME]
    return {f"{section.name}.{f.name}" for section in fields(StageConfig) if is_dataclass(section.type)
            for f in fields(section.type) if section.metadata in marks or f.metadata in marks}


def with_new_options(old: Config) -> Config:
    """A checkpoint's options, with those that came after the version that wrote it at their defaults, as it ran."""
    defaults = as_plain(**{name: section() for name, section in SECTIONS.items()})
    return {name: {**defaults.get(name, {}), **section} for name, section in old.items()}


def option_parser(description: str | None = None) -> ConfigParser:
    """The parser of train.py's command line, without the flags of single stages."""
    parser = ConfigParser(prog=sys.argv[0] if by_name() else "train.py", description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML preset; later flags win over it")
    parser.add_argument("--data", type=str, required=True, help="dataset that make_shards.py wrote: folder or s3://…")
    parser.add_argument("--out", type=str, required=True, help="folder of this run")
    parser.add_argument("--allow-changed-data", action="store_true",
                        help="continue on another dataset or selection with the same number of classes")
    parser.add_argument("--dry-run", action="store_true",
                        help="print what the run will do, try two steps of each stage, and write nothing")
    for name, section in SECTIONS.items():
        parser.add_class_arguments(section, name)
    parser.add_argument("--stages", type=dict[str, dict[str, Any]], default={}, help=STAGES_HELP)
    return parser


def read_arguments(words: list[str], description: str | None = None) -> RunConfig:
    """The command line, presets included. Raises UserError, or exits with one sentence, if it is wrong."""
    words, changes = split_flags(words)
    parser = option_parser(description)
    given = parser.read(words)
    run = parser.build(given)
    stages = {}
    for name, diff in merge(given.stages, changes).items():
        own, sections = stage_options(name, diff, {name: given[name].as_dict() for name in SECTIONS})
        built = parser.build_object({"data": run.data, "out": run.out, **sections}, f"stages.{name}: ")
        stages[name] = StageConfig(own.data or run.data, own, **{name: built[name] for name in SECTIONS})
    only = StageConfig(run.data, StageOptions(), **{name: run[name] for name in SECTIONS})
    return RunConfig(Path(expand_home(run.out)), run.allow_changed_data, run.dry_run, stages or {ONLY: only})


def split_flags(words: list[str]) -> tuple[list[str], list[tuple[list[str], Any]]]:
    """Take the flags of single stages' fields out of the command line: the other words, and (path, value) of each."""
    rest, changes, given = [], [], iter(words)
    for word in given:
        if not word.startswith(FLAG):
            rest.append(word)
            continue
        path, equals, text = word.removeprefix(FLAG).partition("=")
        if not equals and (text := next(given, "--")).startswith("--"):
            raise UserError(f"{word} needs a value, as in {FLAG}high.lr 0.01")
        if "." not in path:
            raise UserError(f"{word} names no field of a stage: write it as in {FLAG}high.lr 0.01")
        try:
            changes.append((path.split("."), parse_yaml(text)))
        except ValueError:
            raise UserError(f"{FLAG}{path} is {text}, which is not a value in YAML: close its brackets and quotes"
                            ) from None
    return rest, changes


def merge(stages: dict[str, Any], changes: list[tuple[list[str], Any]]) -> dict[str, Any]:
    """The mapping with the command line's changes in it. Raises UserError if they name a stage that it lacks."""
    merged = copy.deepcopy(stages)
    for (name, *path, key), value in changes:
        if name not in merged:
            raise UserError(f"{FLAG}{name}: the preset has no such stage; it has {', '.join(merged) or 'none'}")
        section = merged[name]
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"{FLAG}{'.'.join([name, *path, key])}: {part} is no section of a stage")
        section[key] = value
    return merged


def stage_options(name: str, diff: dict[str, Any], run: Config) -> tuple[StageOptions, Config]:
    """A stage's own options, and the run's sections ({section: {field: value}}) with its differences merged in.

    Raises UserError for what a stage cannot have.
    """
    for key in diff:
        if key == "train":
            raise UserError(f"stages.{name}.train: leave out train: a stage's bare names are options of train")
        if key in OF_THE_RUN:
            raise UserError(f"stages.{name}.{key}: all stages of a run share {key}: set it for the run")
    own = {key: value for key, value in diff.items() if key in ("data", "classes")}
    sections = with_stage(run, name, {key: value for key, value in diff.items() if key not in own})
    try:
        return StageOptions(**own), sections
    except ValueError as error:
        raise UserError(f"stages.{name}: {error}") from None


def check_classes(name: str, classes: str, before: list[str], now: list[str]) -> None:
    """Raise UserError if the head is to be kept though the landmark ids, in the order of the labels, are others."""
    if classes == "keep" and before != now:
        raise UserError(f"stages.{name} keeps the classes of the stage before it, which had {len(before):,}; its "
                        f"dataset has {len(now):,} or others: set classes to remap or new")
