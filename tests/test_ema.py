"""The average of the weights is a function of positions, and forgets as it says."""
import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from training.optim import SHARE, AveragedWeights, decay


def test_a_weight_one_half_life_ago_counts_half():
    assert decay(1000, 30_000, half_life=1000) == pytest.approx(0.5)


def test_the_first_weights_are_forgotten_at_once():
    """Without a past nothing is kept; a tenth of what was seen is the half-life until it reaches the given one."""
    assert decay(32, 32, half_life=1e6) == 0.0
    assert decay(1, 10_000, half_life=1e6) == pytest.approx(0.5 ** (1 / (SHARE * 10_000)), rel=1e-4)


@given(st.integers(1, 10**5), st.integers(1, 10**4), st.integers(1, 10**4), st.floats(1, 1e5))
def test_two_updates_forget_as_much_as_one_of_both_their_images(start, one, other, half_life):
    both = decay(one + other, start + one + other, half_life)
    assert decay(one, start + one, half_life) * decay(other, start + one + other, half_life) == pytest.approx(
        both, rel=1e-9, abs=1e-300)


def test_it_is_the_weighted_mean_of_all_weights():
    """Against the sum written out in float64; counters are taken over as they are."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = AveragedWeights(module, half_life=40.0)
    expected = copy.deepcopy(module.state_dict())
    for number in range(1, 30):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(torch.randn_like(p))
        module(torch.randn(4, 3, dtype=torch.float64))
        average.update(12, 12 * number)
        kept = decay(12, 12 * number, 40.0)
        for key, value in module.state_dict().items():
            expected[key] = kept * expected[key] + (1 - kept) * value if value.is_floating_point() else value.clone()
    for key, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-12, atol=1e-12)
    assert not average.module.training and not any(p.requires_grad for p in average.module.parameters())
