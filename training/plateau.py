"""Notices a run whose loss rests where nothing is learnt, and looks for the cause."""
from dataclasses import dataclass
from typing import Any

from model.photometry import prepare
from training import yardsticks
from training.course import Course
from training.step import Step

# Each bound lies well outside what the presets and the winners' solutions do (reasons beside it).
MEAN, STD = 1.5, (0.4, 2.5)  # of the network's input; photos normalised twice have a mean near -2, a deviation near 4
LR = {"sgd": (1e-3, 0.5), "adamw": (1e-5, 5e-3)}  # SGD from 0.001 (D2-MetricLearning) to 0.1, Adam around 3e-4
CLIP = 0.5  # the 1st place 2020 clips at 5
SHARE = 0.3  # of train.lr; weights that were trained on ImageNet do with 0.1
MARGIN = 0.25  # with s = 30 it costs s(1 - cos m) = 0.9 nats where all cosines are 1


@dataclass(frozen=True)
class Circumstances:
    """What a run was doing when it got stuck."""

    mean: float
    """Of the network's input, all channels; a normalised photo has about 0,"""
    std: float
    """and 1."""
    weights: str
    """model.weights"""
    frozen: str
    """train.frozen"""
    optimizer: str
    """train.optimizer"""
    lr: float
    """train.lr"""
    backbone_lr: float
    """train.backbone_lr"""
    clip: float
    """train.clip"""
    margin: float
    """head.margin"""
    margin_warmup: float
    """head.margin_warmup"""


def likely_causes(at: Circumstances) -> list[str]:
    """A clause for each usual cause that is there, with what to do."""
    low, high = LR[at.optimizer]
    random, frozen = at.weights == "none", at.frozen != "none"
    checked = [
        (abs(at.mean) > MEAN or not STD[0] <= at.std <= STD[1],
         f"the network's input has mean {at.mean:.1f} and deviation {at.std:.1f} where its weights expect 0 and 1 (are "
         "the photos normalised twice, or nearly black?)"),
        (frozen and random, "the backbone is frozen (train.frozen) with random weights (model.weights none)"),
        (frozen and not random, "the backbone is frozen (train.frozen): let it learn once the head has begun to"),
        (random and not frozen and at.backbone_lr < SHARE,
         f"train.backbone_lr {at.backbone_lr:g} hardly moves a backbone of random weights (model.weights none): say 1"),
        (at.lr < low, f"train.lr {at.lr:g} is below {low:g}, the least that {at.optimizer} is known to do with: "
                      "raise it"),
        (at.lr > high, f"train.lr {at.lr:g} is above {high:g}, the most that {at.optimizer} is known to do with: "
                       "lower it"),
        (at.clip < CLIP, f"train.clip {at.clip:g} leaves little of the gradient: try 5"),
        (at.margin >= MARGIN and at.margin_warmup == 0,
         f"head.margin {at.margin:g} acts in full from the start: let it grow (head.margin_warmup 0.3)"),
    ]
    return [cause for there, cause in checked if there]


def stuck_sentence(loss: float, level: float, causes: list[str]) -> str:
    """What to tell the user of a run that is stuck."""
    found = ("likely because " + "; ".join(causes)) if causes else (
        "and no usual cause was found in input, frozen layers, train.lr, train.clip and margin, so see whether the "
        "labels are right, or lower train.lr")
    return (f"the loss rests at {loss:.2f}, and {level:.2f} is that of embeddings which all point one way: nothing is "
            f"learnt, {found}")


class Plateau:
    """The losses of the log's lines beside the collapsed one. Its methods read the device."""

    def __init__(self, course: Course, step: Step):
        self.course, self.step = course, step
        self.losses: list[float] = []  # since one sentence has said that they are stuck

    def level(self) -> float:
        """The collapsed loss with the scale and the margin of now."""
        head, sizes = self.step.head, self.course.class_sizes
        return yardsticks.collapsed(len(sizes), float(head.scale), head.cost_of_one(sizes), head.smoothing)

    def sentence(self, loss: float, level: float, batch: Any) -> str | None:
        """Take in the loss of a line; what to tell the user if it is stuck. batch: the latest."""
        self.losses.append(loss)
        if not yardsticks.is_stuck(self.losses, level):
            return None
        self.losses.clear()
        return stuck_sentence(loss, level, likely_causes(self._circumstances(batch)))

    def _circumstances(self, batch: Any) -> Circumstances:
        c, args, embedder = self.course.c, self.course.args, self.step.embedder
        pixels = prepare(batch.images, batch.jitter, embedder.mean, embedder.std)
        return Circumstances(float(pixels.mean()), float(pixels.std()), args.model.weights, c.frozen, c.optimizer, c.lr,
                             c.backbone_lr, c.clip, args.head.margin, args.head.margin_warmup)
