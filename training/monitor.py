"""Warns of input that is not normalized, and of a loss that stays where nothing is learned, with the likely cause.

docs/arcface-convergence.md measures which signs tell a stuck run from a slow one.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.augment import prepare
from model.margins import fixed_adacos_scale
from training.stage import StageRun
from training.step import Step

# Reference losses: ArcFace's loss where nothing has been learned, to tell a stuck run from a slow one.
#
# A loss that rests at `collapsed` means that all embeddings and all class centers point one way: the margin costs
# least there, and its gradient points back to it. C classes, s scale, m margin in radians, d size of the embedding.

LINES = 10  # of metrics.jsonl that must be flat
NEAR, FLAT = 0.03, 0.01  # shares of the level


def uniform_loss(num_classes: int) -> float:
    """With the same probability for every class: ln C."""
    return math.log(num_classes)


def untrained_loss(num_classes: int, dim: int, scale: float, margin: float) -> float:
    """Expected with random directions, whose cosines are about normal with variance 1/d: ln C + s²/(2d) + s·sin m."""
    return uniform_loss(num_classes) + scale ** 2 / (2 * dim) + scale * math.sin(margin)


def collapsed_loss(num_classes: int, scale: float, cost: float, smoothing: float = 0.0) -> float:
    """With every cosine 1: ln(1 + (C - 1)·exp(s·cost)), nearly ln C + s·cost.

    cost: what the margin takes from a cosine of 1: ArcFace 1 - cos m, CosFace m. smoothing: of the labels.
    """
    others = math.log(num_classes - 1) + scale * cost if num_classes > 1 else -math.inf
    spread = smoothing * scale * cost * (1 - 1 / num_classes)  # this share of the truth pays for no margin
    return max(0.0, others) + math.log1p(math.exp(-abs(others))) - spread


def is_stuck(losses: Sequence[float], level: float) -> bool:
    """Whether the last LINES losses stay near `level`, where nothing is learned, and no longer fall."""
    last = losses[-LINES:]
    if len(last) < LINES or max(abs(loss - level) for loss in last) > NEAR * level:
        return False
    half = LINES // 2
    return sum(last[:half]) / half - sum(last[half:]) / half < FLAT * level


# Each bound lies well outside what the presets and the winners' solutions do (reasons beside it).
MEAN, STD = 1.5, (0.4, 2.5)  # of the network's input; normalized twice, its mean is near -2, its deviation 0.02 or 4
LR = {"sgd": (1e-3, 0.5), "adamw": (1e-5, 5e-3)}  # SGD from 0.001 (D2-MetricLearning) to 0.1, Adam around 3e-4
CLIP = 0.5  # the 1st place 2020 clips at 5
SHARE = 0.3  # of train.lr; weights that were trained on ImageNet do with 0.1
SCALE = 4  # times head.scale auto; from random weights, 64 instead of 10 halved recall@1


@dataclass(frozen=True)
class Level:
    """A loss at which nothing is learned."""

    loss: float
    of: str
    """Which embeddings have it, in words."""


def resting_level(num_classes: int, collapsed: float, easy_margin: bool) -> Level:
    """The lowest loss of a run that learns nothing.

    With the easy margin, embeddings at right angles to every center pay no margin: ln C, below `collapsed`.
    """
    if easy_margin:
        return Level(uniform_loss(num_classes), "embeddings at right angles to every center")
    return Level(collapsed, "embeddings which all point one way")


@dataclass(frozen=True)
class RunFacts:
    """What the likely causes are found from."""

    mean: float
    """Of the network's input, all channels; a normalized photo has about 0,"""
    std: float
    """and 1."""
    weights: str
    """model.weights"""
    frozen: tuple[str, ...]
    """train.frozen_parts"""
    optimizer: str
    """train.optimizer"""
    lr: float
    """train.lr"""
    backbone_lr: float
    """train.backbone_lr"""
    clip: float
    """train.clip; inf if it is a share of the weights"""
    scale: float
    """Of the head, now."""
    num_classes: int


def odd_input(mean: float, std: float) -> str | None:
    """A clause, if the network's input is not normalized: mean and deviation over all channels, usually near 0 and 1.
    """
    if abs(mean) <= MEAN and STD[0] <= std <= STD[1]:
        return None
    return (f"the network's input has mean {mean:.2f} and deviation {std:.2f} instead of about 0 and 1 (are the photos "
            "normalized twice, or nearly black?)")


def likely_causes(at: RunFacts) -> list[str]:
    """A clause for each usual cause that is there, with what to do."""
    low, high = LR[at.optimizer]
    auto = fixed_adacos_scale(at.num_classes) if at.num_classes >= 3 else math.inf
    random, frozen, odd = at.weights == "none", "backbone" in at.frozen, odd_input(at.mean, at.std)
    checked = [
        (odd is not None, str(odd)),
        (frozen and random, "the backbone is frozen (train.frozen) with random weights (model.weights none)"),
        (frozen and not random, "the backbone is frozen (train.frozen): let it learn once the head has begun to"),
        ("head" in at.frozen, "the head is frozen (train.frozen): let its centers learn first"),
        (random and not frozen and at.backbone_lr < SHARE,
         f"train.backbone_lr {at.backbone_lr:g} hardly moves a backbone of random weights (model.weights none): set it "
         "to 1"),
        (at.lr < low, f"train.lr {at.lr:g} is below {low:g}, the least that {at.optimizer} is known to train with: "
                      "raise it"),
        (at.lr > high, f"train.lr {at.lr:g} is above {high:g}, the most that {at.optimizer} is known to train with: "
                       "lower it"),
        (at.clip < CLIP, f"train.clip {at.clip:g} leaves little of the gradient: try 5"),
        (random and at.scale > SCALE * auto,
         f"the head's scale {at.scale:g} is large for a backbone of random weights (model.weights none): set "
         f"head.scale to auto, here {auto:.1f}"),
    ]
    return [cause for there, cause in checked if there]


def stuck_sentence(loss: float, level: Level, causes: list[str]) -> str:
    """The warning about a run that is stuck."""
    found = ("likely because " + "; ".join(causes)) if causes else (
        "and input, frozen layers, train.lr, train.clip and head.scale show no usual cause; check the labels, or lower "
        "train.lr")
    return f"nothing is learned: the loss stays at {loss:.2f}, near the {level.loss:.2f} of {level.of}, {found}"


class CollapseMonitor:
    """Compares the logged losses with the one where nothing is learned. Its methods wait for the device."""

    def __init__(self, stage: StageRun, step: Step):
        self.stage, self.step = stage, step
        self.losses: list[float] = []  # since the last warning
        self.input_seen = False

    def collapsed_loss(self) -> float:
        """The collapsed loss with the present scale and margin."""
        head, sizes = self.step.head, self.stage.class_sizes
        return collapsed_loss(len(sizes), float(head.scale), head.cost_of_one(sizes), head.smoothing)

    def warning(self, loss: float, collapsed: float, batch: Any) -> str | None:
        """Take in the loss of a line; a warning about odd input, once, or about a stuck run. batch: the latest."""
        self.losses.append(loss)
        if not self.input_seen:
            self.input_seen = True
            if odd := odd_input(*self._input(batch)):
                return f"{odd}: the network can learn little from it"
        level = resting_level(len(self.stage.class_sizes), collapsed, self.stage.config.head.easy_margin)
        if not is_stuck(self.losses, level.loss):
            return None
        self.losses.clear()
        return stuck_sentence(loss, level, likely_causes(self._facts(batch)))

    def _input(self, batch: Any) -> tuple[float, float]:
        """Mean and deviation of what the network is given."""
        embedder = self.step.embedder
        pixels = prepare(batch.images, batch.jitter, embedder.mean, embedder.std)
        return float(pixels.mean()), float(pixels.std())

    def _facts(self, batch: Any) -> RunFacts:
        c, model = self.stage.c, self.stage.config.model
        clip = math.inf if c.clip_by == "adaptive" else c.clip
        return RunFacts(*self._input(batch), model.weights, c.frozen_parts, c.optimizer, c.lr, c.backbone_lr, clip,
                        float(self.step.head.scale), len(self.stage.class_sizes))
