"""Margins and what class sizes give, against arithmetic through arccos or plain Python in float64."""
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.margins import (
    adapt,
    add_angle,
    add_angle_if_near,
    fixed_adacos_scale,
    log_weights,
    power_margins,
    range_margins,
    subtract,
)

inside = st.floats(-0.999, 0.999)
angle = st.floats(0, 1.5)


def turned(theta, shift):
    """cos(θ + shift), 1 below an angle of 0, the line past π."""
    line = theta.cos() - shift * math.sin(shift)
    return torch.where(theta + shift > math.pi, line, (theta + shift).clamp_min(0).cos())


def check(margin_function, reference, cos):
    """Value and derivative in float64."""
    given_cos = torch.tensor([cos], dtype=torch.float64, requires_grad=True)
    expected = reference(given_cos.arccos())
    expected.sum().backward()
    target, slope = margin_function(given_cos.detach())
    torch.testing.assert_close(target, expected.detach(), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(slope, given_cos.grad, rtol=1e-7, atol=1e-9)


def tensor(number):
    return torch.tensor(number, dtype=torch.float64)


@given(inside, angle)
def test_an_added_angle_is_arccos_arithmetic(cos, margin):
    check(lambda c: add_angle(c, tensor(margin)), lambda theta: turned(theta, margin), cos)


@given(inside.filter(lambda cos: abs(cos) > 1e-6), angle)
def test_an_easy_margin_acts_where_the_cosine_is_positive(cos, margin):
    check(lambda c: add_angle_if_near(c, tensor(margin)),
          lambda theta: torch.where(theta.cos() > 0, turned(theta, margin), theta.cos()), cos)


@given(inside, st.floats(0, 1))
def test_a_subtracted_margin_is_a_difference(cos, margin):
    check(lambda c: subtract(c, tensor(margin)), lambda theta: theta.cos() - margin, cos)


@given(inside, st.floats(0, 0.7), st.floats(-1, 1))
def test_an_adaptive_margin_turns_against_quality_and_subtracts_with_it(cos, margin, quality):
    check(lambda c: adapt(c, tensor(margin), tensor(quality)),
          lambda theta: turned(theta, -margin * quality) - margin * quality - margin, cos)


def test_the_adaptive_margin_is_arcface_at_quality_minus_one_and_cosface_at_zero():
    cos, margin = torch.linspace(-0.8, 0.99, 50), torch.tensor(0.4)
    torch.testing.assert_close(adapt(cos, margin, torch.tensor(-1.0))[0], (cos.arccos() + 0.4).cos())
    torch.testing.assert_close(adapt(cos, margin, torch.tensor(0.0))[0], cos - 0.4)


@pytest.mark.parametrize("quality", [-1.0, 0.0, 1.0])
def test_targets_and_derivatives_are_finite_at_the_ends_and_no_margin_rewards(quality):
    cos, margin = torch.tensor([-1.0, -1 + 1e-7, 0.0, 1 - 1e-7, 1.0]), torch.tensor(0.5)
    for target, slope in (add_angle(cos, margin), add_angle_if_near(cos, margin), subtract(cos, margin),
                          adapt(cos, margin, torch.tensor(quality))):
        assert torch.isfinite(target).all() and torch.isfinite(slope).all()
        assert (target <= cos + 1e-6).all() and (slope >= 0).all()


def test_a_margin_for_each_row_is_that_margin_alone():
    cos, margins = torch.linspace(-1, 1, 7), torch.linspace(0, 1.5, 7)
    together = add_angle(cos, margins)
    for row in range(7):
        alone = add_angle(cos[row], margins[row])
        assert torch.equal(together[0][row], alone[0]) and torch.equal(together[1][row], alone[1])


def test_power_margins_follow_the_paper():
    sizes = [1, 2, 50, 6272]
    expected = [0.5 * n ** -0.25 + 0.05 for n in sizes]
    torch.testing.assert_close(power_margins(torch.tensor(sizes), 0.5, 0.05, 0.25), torch.tensor(expected))


def test_range_margins_are_those_of_the_third_place():
    """Values of the reference notes, which round them to two digits."""
    sizes = torch.tensor([2, 5, 10, 50, 100, 1000, 6272])
    expected = torch.tensor([0.50, 0.39, 0.33, 0.21, 0.18, 0.09, 0.05])
    torch.testing.assert_close(range_margins(sizes, 0.5, 0.05, 0.25), expected, atol=0.0051, rtol=0)


def test_classes_of_one_size_have_the_whole_margin_and_empty_ones_count_as_one_image():
    assert range_margins(torch.tensor([7, 7]), 0.5, 0.05, 0.25).tolist() == [0.5, 0.5]
    for function in (power_margins, range_margins):
        empty, single = (function(torch.tensor([n, 1, 9]), 0.5, 0.05, 0.25) for n in (0, 1))
        assert torch.equal(empty, single)


@given(st.lists(st.integers(1, 7000), min_size=1, max_size=30))
def test_log_weights_are_one_on_average_over_images_and_inverse_logarithms(sizes):
    weights = log_weights(torch.tensor(sizes)).double()
    assert sum(n * float(w) for n, w in zip(sizes, weights)) / sum(sizes) == pytest.approx(1, rel=1e-5)
    products = [float(w) * math.log(1 + n) for n, w in zip(sizes, weights)]
    assert products == pytest.approx([products[0]] * len(sizes), rel=1e-5)


def test_the_fixed_scale_grows_with_the_logarithm_of_the_classes():
    assert fixed_adacos_scale(81_313) == pytest.approx(math.sqrt(2) * math.log(81_312))
    with pytest.raises(ValueError, match="needs at least 3 classes; got 2: give a number"):
        fixed_adacos_scale(2)
