import math

import pytest

from training.schedules import lr_factor, margin_at


@pytest.mark.parametrize("progress, expected", [
    (0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.55, 0.5), (1.0, 0.0), (0.325, 0.5 * (1 + math.cos(math.pi / 4)))])
def test_learning_rate_rises_linearly_then_falls_as_half_a_cosine(progress, expected):
    assert lr_factor(progress, 0.1) == pytest.approx(expected, abs=1e-12)


def test_learning_rate_without_warmup_starts_at_its_peak():
    assert lr_factor(0.0, 0.0) == 1.0


def test_a_run_that_is_all_warmup_ends_at_its_peak():
    assert lr_factor(0.5, 1.0) == 0.5 and lr_factor(0.999, 1.0) == pytest.approx(0.999)


@pytest.mark.parametrize("progress, expected", [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.6, 1.0), (1.0, 1.0)])
def test_a_constant_learning_rate_stays_after_its_warmup(progress, expected):
    assert lr_factor(progress, 0.1, "constant") == expected


@pytest.mark.parametrize("progress, expected", [(0.0, 0.0), (0.25, 0.15), (0.5, 0.3), (1.0, 0.3)])
def test_margin_rises_linearly_and_stays(progress, expected):
    assert margin_at(progress, 0.3, 0.5) == pytest.approx(expected)


def test_margin_without_warmup_is_there_from_the_start():
    assert margin_at(0.0, 0.3, 0.0) == 0.3
