"""A run that is stuck is told which of the usual causes it has."""
from dataclasses import replace

import pytest

from training.plateau import Circumstances, likely_causes, stuck_sentence

SOUND = Circumstances(mean=-0.2, std=1.1, weights="timm", frozen="none", optimizer="sgd", lr=0.05, backbone_lr=1.0,
                      clip=5.0, margin=0.3, margin_warmup=0.3)


def test_a_sound_run_has_none():
    assert likely_causes(SOUND) == []
    assert stuck_sentence(5.54, 5.5, []) == (
        "the loss rests at 5.54, and 5.50 is that of embeddings which all point one way: nothing is learnt, and no "
        "usual cause was found in input, frozen layers, train.lr, train.clip and margin, so see whether the labels are "
        "right, or lower train.lr")


@pytest.mark.parametrize("change, cause", [
    ({"mean": -2.1, "std": 4.4}, "the network's input has mean -2.1 and deviation 4.4 where its weights expect 0 and 1 "
                                 "(are the photos normalised twice, or nearly black?)"),
    ({"mean": 0.1, "std": 0.01}, "the network's input has mean 0.1 and deviation 0.0 where its weights expect 0 and 1 "
                                 "(are the photos normalised twice, or nearly black?)"),
    ({"frozen": "backbone", "weights": "none"},
     "the backbone is frozen (train.frozen) with random weights (model.weights none)"),
    ({"frozen": "backbone"}, "the backbone is frozen (train.frozen): let it learn once the head has begun to"),
    ({"weights": "none", "backbone_lr": 0.1},
     "train.backbone_lr 0.1 hardly moves a backbone of random weights (model.weights none): say 1"),
    ({"lr": 1e-4}, "train.lr 0.0001 is below 0.001, the least that sgd is known to do with: raise it"),
    ({"lr": 2.0}, "train.lr 2 is above 0.5, the most that sgd is known to do with: lower it"),
    ({"lr": 0.05, "optimizer": "adamw"},
     "train.lr 0.05 is above 0.005, the most that adamw is known to do with: lower it"),
    ({"clip": 0.01}, "train.clip 0.01 leaves little of the gradient: try 5"),
    ({"margin_warmup": 0.0}, "head.margin 0.3 acts in full from the start: let it grow (head.margin_warmup 0.3)"),
])
def test_each_cause_is_named_alone(change, cause):
    assert likely_causes(replace(SOUND, **change)) == [cause]


def test_causes_that_come_together_are_all_named():
    causes = likely_causes(replace(SOUND, clip=0.01, lr=2.0))
    assert len(causes) == 2
    assert stuck_sentence(5.0, 5.0, causes).endswith(f"nothing is learnt, likely because {'; '.join(causes)}")
