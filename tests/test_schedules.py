"""Schedules against torch's and timm's own, step by step."""
import math

import pytest
import torch
from timm.scheduler import PolyLRScheduler
from torch.optim import lr_scheduler

from model import HeadConfig
from training.config import TrainConfig
from training.schedules import lr_factor, margin_at

STEPS = 8  # of an epoch


def factors(epochs, until=None, **options):
    """At each step of a stage of so many epochs, or until that many."""
    c = TrainConfig(epochs=epochs, **options)
    return [lr_factor(step / (epochs * STEPS), step / STEPS, c) for step in range(int((until or epochs) * STEPS))]


def followed(make, steps):
    """The rates of a scheduler of torch or timm, of an optimizer of rate 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, rates = make(optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step_update(step + 1) if isinstance(schedule, PolyLRScheduler) else schedule.step()
    return rates


@pytest.mark.parametrize("options, theirs", [
    ({"schedule": "constant"}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    ({"schedule": "cosine"}, lambda o: lr_scheduler.CosineAnnealingLR(o, 6 * STEPS)),
    ({"schedule": "cosine", "lr_end": 0.05}, lambda o: lr_scheduler.CosineAnnealingLR(o, 6 * STEPS, eta_min=0.05)),
    ({"schedule": "cosine", "schedule_epochs": 15.0}, lambda o: lr_scheduler.CosineAnnealingLR(o, 15 * STEPS)),
    ({"schedule": "poly"}, lambda o: lr_scheduler.PolynomialLR(o, 6 * STEPS)),
    ({"schedule": "poly", "poly_power": 2.0}, lambda o: lr_scheduler.PolynomialLR(o, 6 * STEPS, power=2.0)),
    ({"schedule": "poly", "poly_power": 0.5, "lr_end": 0.1, "schedule_epochs": 7.0},
     lambda o: PolyLRScheduler(o, 7 * STEPS, power=0.5, lr_min=0.1, t_in_epochs=False)),
    ({"schedule": "step", "step_epochs": (2, 4)}, lambda o: lr_scheduler.MultiStepLR(o, [2 * STEPS, 4 * STEPS])),
    ({"schedule": "step", "step_gamma": 0.8}, lambda o: lr_scheduler.StepLR(o, STEPS, gamma=0.8))])
def test_a_schedule_is_the_one_of_its_name_elsewhere(options, theirs):
    assert factors(6.0, warmup=0.0, **options) == pytest.approx(followed(theirs, 6 * STEPS), abs=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "poly", "step", "constant"])
def test_a_schedule_begins_with_its_warmup(schedule):
    """timm's warm-up from 0 with warmup_prefix; the steps of step count from the stage's beginning."""
    ours = factors(10.0, schedule=schedule, step_epochs=(2,))
    assert ours[:STEPS] == pytest.approx([step / STEPS for step in range(STEPS)]) and ours[STEPS] == 1
    after = {"cosine": 0.5, "poly": 0.5, "step": 0.1, "constant": 1.0}
    assert lr_factor(0.55, 5.5, TrainConfig(schedule=schedule)) == pytest.approx(
        after[schedule] if schedule != "step" else 0.1 ** 5)
    assert ours[2 * STEPS - 1] > 0.9 and (schedule != "step" or ours[2 * STEPS] == 0.1)


def test_a_run_that_is_all_warmup_ends_at_its_peak():
    c = TrainConfig(warmup=1.0)
    assert lr_factor(0.5, 5.0, c) == 0.5 and lr_factor(0.999, 9.99, c) == pytest.approx(0.999)


def test_a_step_falls_at_the_first_image_of_its_epoch_whatever_rounding_does_to_progress():
    images, epoch = math.ceil(3.3 * 1001), 1001
    c = TrainConfig(epochs=3.3, schedule="step", step_epochs=(2.0,), warmup=0.0)
    assert [lr_factor(at / images, at / epoch, c) for at in (2 * epoch - 1, 2 * epoch)] == [1.0, 0.1]


@pytest.mark.parametrize("progress, expected", [(0.0, 0.1), (0.25, 0.2), (0.5, 0.3), (1.0, 0.3)])
def test_margin_rises_linearly_and_stays(progress, expected):
    c = HeadConfig(margin=0.3, margin_start=0.1, margin_warmup=0.5)
    assert margin_at(progress, 10 * progress, c) == pytest.approx(expected)


def test_margin_without_warmup_is_there_from_the_start():
    assert margin_at(0.0, 0.0, HeadConfig(margin=0.3)) == 0.3


def test_a_margin_that_rises_by_epoch_is_that_of_the_second_place_of_universal_image_embedding():
    """0.3 + 0.1 · (epoch - 1) up to 0.8, in its ten epochs."""
    c = HeadConfig(margin=0.8, margin_start=0.3, margin_warmup=0.5, margin_by_epoch=True)
    for position in range(0, 1000, 7):
        assert margin_at(position / 1000, position / 100, c) == pytest.approx(min(0.3 + 0.1 * (position // 100), 0.8))
