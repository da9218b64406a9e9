"""The arms of the convergence study: its tasks, and for each a baseline and what is changed in it.

A change is written as train.py's flags are, `section.field`; the section `fault` is the study's own (Faults).
"""
from dataclasses import dataclass, fields
from typing import Any

from loader import View
from model import HeadConfig, ModelConfig
from training.config import TrainConfig

Changes = dict[str, Any]


@dataclass(frozen=True)
class Faults:
    """What arcshard has no option for: D2-MetricLearning's faults, and two remedies that a user writes as stages."""

    double_normalization: bool = False
    """Normalize once more with the mean and deviation of pixels in 0..255 (its metric.py after its mapper.py)."""
    bgr: bool = False
    """Give the network blue, green, red (cv2's order)."""
    frozen_stem: bool = False
    """The stem and the stages down to a quarter of the side do not learn, nor do their statistics (FREEZE_AT = 2)."""
    softmax_first: bool = False
    """No margin for the first half of the run, all of it from then on."""
    class_means: bool = False
    """Start the centers from the classes' mean embeddings."""


@dataclass(frozen=True)
class Setting:
    """All that a run depends on besides task and seed."""

    model: ModelConfig
    head: HeadConfig
    train: TrainConfig
    fault: Faults


@dataclass(frozen=True)
class Arm:
    """What differs from the baseline, and the arm that its runs are compared with, seed by seed."""

    changes: Changes
    against: str = "baseline"


@dataclass(frozen=True)
class Task:
    """Photos, views, and the baseline's changes to the product's defaults."""

    classes_are_photos: bool
    gallery_every: int
    """The gallery, in which the nearest photo is searched, has one of so many batches of the train split."""
    view: View
    baseline: Changes
    arms: dict[str, Arm]
    curves: tuple[str, ...] = ()
    """Arms whose losses the figure shows; a task with none has no figure."""


def setting(*changes: Changes) -> Setting:
    """The product's defaults with these changes, later ones winning."""
    merged = {flag: value for each in changes for flag, value in each.items()}
    sections: dict[str, Changes] = {field.name: {} for field in fields(Setting)}
    for flag, value in merged.items():
        section, _, name = flag.partition(".")
        sections[section][name] = value
    return Setting(ModelConfig(**sections["model"]), HeadConfig(**sections["head"]), TrainConfig(**sections["train"]),
                   Faults(**sections["fault"]))


BASELINE, UNTRAINED, EXP7, HARD = "baseline", "untrained", "exp7", "hard"
STATISTICS = "statistics learned"
AT_ONCE: Changes = {"head.scale": 64.0, "head.margin": 0.5, "head.margin_warmup": 0.0}
CLIP_VALUE: Changes = {"train.clip_by": "value", "train.clip": 0.01}
LINEAR_NECK: Changes = {"model.neck": "linear", "model.pooling": "avg"}
NO_NECK: Changes = {"model.neck": "none", "model.pooling": "avg"}
NO_LEARNING: Changes = {"train.lr": 1e-9}  # BatchNorm's statistics move all the same

DEMO: Changes = {
    "model.backbone": "tf_efficientnet_lite0", "model.weights": "package", "model.dim": 256,
    "head.scale": 30.0, "head.margin": 0.3, "head.margin_warmup": 0.5,
    "train.epochs": 1.5, "train.global_batch": 32, "train.size": 56, "train.batchnorm": "frozen",
    "train.lr": 0.1, "train.backbone_lr": 0.1}
# The learning rate is as far from the baseline's as D2-MetricLearning's 0.002 is from the 0.05 of 1st place 2020; the
# backbone has the same, since D2-MetricLearning's multiplier is never applied.
FAULTS: dict[str, Changes] = {
    "double normalization": {"fault.double_normalization": True},
    "BGR": {"fault.bgr": True},
    "frozen stem": {"fault.frozen_stem": True},
    "clip by value 0.01": CLIP_VALUE,
    "tiny learning rate": {"train.lr": 0.004, "train.backbone_lr": 1.0, "train.schedule": "constant",
                           "train.warmup": 0.0},
    "s 64, m 0.5 at once": AT_ONCE,
    "easy margin": {"head.easy_margin": True},
    "linear neck": LINEAR_NECK,
}
INPUT_FAULTS = ("double normalization", "BGR", "frozen stem")
OPTIMIZER_FAULTS = ("clip by value 0.01", "tiny learning rate")


def faults(*but: str) -> Changes:
    """All of D2-MetricLearning's faults, as its exp7 has them, but these."""
    return {flag: value for name, changes in FAULTS.items() if name not in but for flag, value in changes.items()}


LEARNED: Changes = {"train.batchnorm": "learned"}
EXP11: Changes = {**faults(), "head.scale": 45.0, "head.margin": 0.35, "model.neck": "bn", "model.neck_bias": False,
                  "train.lr": 0.002}
DEMO_ARMS = {
    BASELINE: Arm({}),
    UNTRAINED: Arm({**NO_NECK, **NO_LEARNING, "train.epochs": 0.02}),
    EXP7: Arm(faults()),
    **{f"only {name}": Arm(changes) for name, changes in FAULTS.items()},
    "only the three of the input": Arm({flag: True for name in INPUT_FAULTS for flag in FAULTS[name]}),
    STATISTICS: Arm(LEARNED),
    "statistics learned, double normalization": Arm({**LEARNED, **FAULTS["double normalization"]}, STATISTICS),
    "exp7, statistics learned": Arm({**faults(), **LEARNED}, EXP7),
    "exp7 but the two of the optimizer": Arm(faults(*OPTIMIZER_FAULTS), EXP7),
    "exp7 but these five": Arm(faults(*OPTIMIZER_FAULTS, *INPUT_FAULTS), EXP7),
    **{f"exp7 but {name}": Arm(faults(name), EXP7) for name in FAULTS},
    "exp11": Arm(EXP11),
    "m 0.3 at once": Arm({"head.margin_warmup": 0.0}),
    "s 64, m 0.5 by class size": Arm({**AT_ONCE, "head.class_size_margin": "range"}, "only s 64, m 0.5 at once"),
}

VIEWS: Changes = {
    "model.backbone": "test_resnet", "model.weights": "none", "model.dim": 128, "model.neck": "bn",
    "head.scale": "auto", "head.margin": 0.3, "head.margin_warmup": 0.5,
    "train.epochs": 8, "train.global_batch": 64, "train.size": 40, "train.lr": 0.1}
HARDER: Changes = {**AT_ONCE, "model.neck": "swish"}
VIEWS_ARMS = {
    BASELINE: Arm({}),
    UNTRAINED: Arm(NO_LEARNING),
    HARD: Arm(HARDER),
    "m 0.5 at once": Arm({"head.margin": 0.5, "head.margin_warmup": 0.0}),
    "s 64": Arm({"head.scale": 64.0}),
    "s 64, m 0.5 at once": Arm(AT_ONCE),
    "neck without BatchNorm": Arm({"model.neck": "swish"}),
    "easy margin": Arm({"head.easy_margin": True}),
    "10 × the learning rate": Arm({"train.lr": 1.0}),
    "1/10 of the learning rate": Arm({"train.lr": 0.01}),
    "clip by value 0.01": Arm(CLIP_VALUE),
    "hard, margin warm-up": Arm({**HARDER, "head.margin_warmup": 0.5}, HARD),
    "hard, softmax first": Arm({**HARDER, "fault.softmax_first": True}, HARD),
    "hard, s auto": Arm({**HARDER, "head.scale": "auto"}, HARD),
    "hard, head's rate × 10": Arm({**HARDER, "train.lr": 1.0, "train.backbone_lr": 0.1}, HARD),
    "hard, class means": Arm({**HARDER, "fault.class_means": True}, HARD),
    "hard, 1/10 of the learning rate": Arm({**HARDER, "train.lr": 0.01}, HARD),
    "hard, 3 × the epochs": Arm({**HARDER, "train.epochs": 24}, HARD),
    "m 0.3 at once": Arm({"head.margin_warmup": 0.0}),
    "m 0": Arm({"head.margin": 0.0}),
    "hard, s auto, BatchNorm, margin warm-up": Arm({"head.margin": 0.5}, HARD),
    "baseline, 3 × the epochs": Arm({"train.epochs": 24}, "hard, 3 × the epochs"),
}

# "ViT and ConvNeXt get stuck with ArcFace": insightface's issue 2144, whose training has SGD at 0.1 without warm-up.
ADAMW: Changes = {"train.optimizer": "adamw", "train.lr": 1e-3, "train.weight_decay": 0.05}
INSIGHTFACE: Changes = {
    **AT_ONCE, "model.neck": "linear", "train.optimizer": "sgd", "train.nesterov": False, "train.lr": 0.1,
    "train.weight_decay": 5e-4, "train.warmup": 0.0, "train.schedule": "poly"}
REMEDIES: dict[str, Changes] = {
    "AdamW": ADAMW,
    "s auto": {"head.scale": "auto"},
    "CosFace": {"head.kind": "cosface", "head.margin": 0.4},
    "warm-up": {"train.warmup": 0.1},
    "adaptive clipping": {"train.clip_by": "adaptive", "train.clip": 0.01},
    "layer decay 0.75": {"train.layer_decay": 0.75},
    "LayerNorm before the head": {"model.neck": "ln"},
    "AdamW, s auto": {**ADAMW, "head.scale": "auto"},
}
FROM_RANDOM: Changes = {**VIEWS, **ADAMW, "model.pooling": "avg", "head.margin_warmup": 0.0, "train.size": 48}
STUCK = "SGD 0.1"
FROM_RANDOM_ARMS = {
    BASELINE: Arm({}),
    UNTRAINED: Arm({**NO_LEARNING, "model.neck": "linear", "train.epochs": 0.05}),
    STUCK: Arm(INSIGHTFACE),
    **{f"{STUCK}, {name}": Arm({**INSIGHTFACE, **changes}, STUCK) for name, changes in REMEDIES.items()},
}

TASKS = {
    "demo": Task(False, 3, View(area=(0.5, 1.0)), DEMO, DEMO_ARMS,
                 (BASELINE, "only double normalization", "only s 64, m 0.5 at once", EXP7,
                  "exp7 but double normalization")),
    "views": Task(True, 1, View(area=(0.3, 1.0)), VIEWS, VIEWS_ARMS,
                  (BASELINE, HARD, "hard, margin warm-up", "hard, s auto", "hard, head's rate × 10",
                   "hard, class means")),
    **{name: Task(True, 1, View(area=(0.3, 1.0)), {**FROM_RANDOM, "model.backbone": backbone}, FROM_RANDOM_ARMS)
       for name, backbone in (("vit", "test_vit"), ("convnext", "test_convnext"))},
}
