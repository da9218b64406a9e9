import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loader.order as bijections
from loader.order import sample_at
from loader.plan import rank_positions


@given(st.integers(1, 3000), st.integers(0, 10**6), st.integers(0, 2**63 - 1))
@settings(max_examples=60)
def test_every_epoch_holds_each_sample_once(num_samples, epoch, seed):
    positions = np.arange(epoch * num_samples, (epoch + 1) * num_samples)
    assert np.array_equal(np.sort(sample_at(positions, num_samples, seed)), np.arange(num_samples))


@pytest.mark.parametrize("num_samples", [99_991, 2**16, 2**16 + 1, 1_223_195])
def test_large_epochs_hold_each_sample_once(num_samples):
    samples = sample_at(np.arange(num_samples, 2 * num_samples), num_samples, 7)
    assert len(np.unique(samples)) == num_samples and samples.min() == 0 and samples.max() == num_samples - 1


@given(st.integers(1, 500), st.sampled_from([(1, 24), (2, 12), (3, 8), (8, 3), (24, 1)]), st.integers(0, 20))
@settings(max_examples=60)
def test_ranks_together_give_the_stream_of_one(num_samples, world, step):
    """Disjoint contiguous parts of one global batch of 24, across epoch ends."""
    world_size, batch_size = world
    start = step * 24
    parts = [sample_at(rank_positions(start, batch_size, rank), num_samples, 5) for rank in range(world_size)]
    assert np.array_equal(np.concatenate(parts), sample_at(np.arange(start, start + 24), num_samples, 5))


def test_a_position_is_answered_alike_alone_and_in_any_company():
    positions = np.random.default_rng(0).integers(0, 10**12, 300)
    together = sample_at(positions, 1_223_195, 1)
    assert together.tolist() == [int(sample_at(np.array([p]), 1_223_195, 1)[0]) for p in positions]


def test_seeds_and_epochs_give_different_orders():
    n = 1000
    orders = [sample_at(np.arange(e * n, (e + 1) * n), n, seed) for seed in (0, 1) for e in (0, 1, 2)]
    same = [(a == b).sum() for i, a in enumerate(orders) for b in orders[:i]]
    assert max(same) <= 8  # fixed points of a random permutation: Poisson with mean 1


def z_of_neighbor_differences(num_samples: int, epochs: int) -> float:
    """Chi-square of (next - this) mod N over whole epochs, as a standard normal deviate."""
    samples = sample_at(np.arange(epochs * num_samples), num_samples, 1).reshape(epochs, num_samples)
    steps = np.bincount(((samples[:, 1:] - samples[:, :-1]) % num_samples).ravel(), minlength=num_samples)[1:]
    expected = steps.sum() / (num_samples - 1)
    chi_square = ((steps - expected) ** 2 / expected).sum()
    return (chi_square - (num_samples - 2)) / np.sqrt(2 * (num_samples - 2))


@pytest.mark.parametrize("num_samples", [3, 5, 17, 200, 255, 256, 300])
def test_neighbors_in_the_order_are_uniform(num_samples):
    assert abs(z_of_neighbor_differences(num_samples, 400_000 // num_samples)) < 5


@pytest.mark.parametrize("name, too_few, num_samples", [("ROUNDS", 4, 300), ("SWAPS", 4, 200)])
def test_this_measure_sees_the_bias_of_too_few_rounds(name, too_few, num_samples, monkeypatch):
    monkeypatch.setattr(bijections, name, too_few)
    assert z_of_neighbor_differences(num_samples, 2000) > 10


@given(st.lists(st.integers(1, 700), min_size=1, max_size=30), st.integers(0, 5))
@settings(max_examples=60)
def test_positions_may_each_be_of_a_stream_of_their_own(sizes, seed):
    positions, seeds = np.arange(len(sizes)) * 97, seed + np.arange(len(sizes)) % 3
    apart = [int(sample_at(np.array([p]), n, s)[0]) for p, n, s in zip(positions.tolist(), sizes, seeds.tolist())]
    assert sample_at(positions, np.array(sizes), seeds).tolist() == apart


@pytest.mark.parametrize("num_samples", [3, 5, 100, 300])
def test_each_sample_is_equally_likely_at_each_position(num_samples):
    epochs = 300_000 // num_samples
    samples = sample_at(np.arange(epochs * num_samples), num_samples, 2).reshape(epochs, num_samples)
    counts = np.stack([np.bincount(column, minlength=num_samples) for column in samples.T])
    expected = epochs / num_samples
    chi_square, freedom = ((counts - expected) ** 2 / expected).sum(), (num_samples - 1) ** 2
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("num_samples", [100, 3000, 100_000])
def test_an_epoch_says_nothing_of_the_next(num_samples):
    """Correlation of a sample's places in consecutive epochs, and of an epoch with its order of samples."""
    epochs = 20
    samples = sample_at(np.arange(epochs * num_samples), num_samples, 3).reshape(epochs, num_samples)
    places = np.argsort(samples, axis=1)
    for one, other in [*zip(places, places[1:]), *zip(samples, np.tile(np.arange(num_samples), (epochs, 1)))]:
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(num_samples)  # 5 standard deviations


def test_ten_billion_samples_need_no_memory():
    n = 10**10
    samples = sample_at(np.array([0, n - 1, n, 5 * n + 3]), n, 0)
    assert len(set(samples.tolist())) == 4 and samples.min() >= 0 and samples.max() < n


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="num_samples is 0: give 1 or more"):
        sample_at(np.arange(3), 0, 0)
    with pytest.raises(ValueError, match="a position is -1: give 0 or more"):
        sample_at(np.array([-1]), 5, 0)
