"""The order of shards and samples where only a window of shards is at hand: exact, resumable, shuffled as promised."""
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcshard.console import UserError
from loader import Selection
from loader.plan import rank_positions
from loader.read import replacement
from loader.streams import EvaluationSchedule, WindowStream, window_bounds
from shards import CacheConfig

COUNTS = st.lists(st.integers(1, 30), min_size=1, max_size=25)  # samples of each shard
WINDOWS = st.integers(1, 12)
SEEDS = st.integers(0, 2**32)
MANY = settings(max_examples=60)


def remote(counts, window):
    """As much of a Dataset as the order reads."""
    shards = np.repeat(np.arange(len(counts)), counts)
    index = np.array([(shard, b"k%05d" % row) for row, shard in enumerate(shards)],
                     dtype=[("shard", "<i4"), ("key", "S8")])

    class Remote(SimpleNamespace):
        def __len__(self):
            return len(shards)

    return Remote(index=index, num_shards=len(counts), cache=CacheConfig(window=window), path="s3://b/d", split="train")


def stream_of(counts, window, seed=0, **selection):
    return WindowStream(remote(counts, window), Selection(**selection), seed)


@given(COUNTS, WINDOWS, SEEDS)
@MANY
def test_each_sample_once_an_epoch_and_only_from_the_shards_of_its_window(counts, window, seed):
    stream = stream_of(counts, window, seed)
    shards = np.repeat(np.arange(len(counts)), counts)
    assert stream.epoch_size == sum(counts)
    for epoch in range(3):
        positions = epoch * sum(counts) + np.arange(sum(counts))
        rows = stream.sample_at(positions)
        assert sorted(rows.tolist()) == list(range(sum(counts)))
        numbers = [stream.windows_of(positions[i:i + 1])[0] for i in range(len(positions))]
        assert numbers == sorted(numbers) and all(
            shard in stream.shards_of(number) for shard, number in zip(shards[rows].tolist(), numbers))


@given(COUNTS, WINDOWS, SEEDS)
@MANY
def test_the_shards_of_an_epoch_are_each_needed_once_and_in_windows_of_nearly_one_size(counts, window, seed):
    stream = stream_of(counts, window, seed)
    number = -(-len(counts) // window)
    for epoch in range(3):
        windows = [stream.shards_of(epoch * number + k) for k in range(number)]
        sizes = [len(shards) for shards in windows]
        assert sorted(sum(windows, [])) == list(range(len(counts)))
        assert max(sizes) <= window and max(sizes) - min(sizes) <= 1


@given(COUNTS, WINDOWS, SEEDS, st.integers(0, 200), st.integers(1, 40), st.sampled_from([1, 2, 3, 8]))
@MANY
def test_ranks_together_read_what_one_reads_from_any_position_on(counts, window, seed, start, batch, world_size):
    stream = stream_of(counts, window, seed)
    whole = stream.sample_at(np.arange(start + batch * world_size))
    fresh = stream_of(counts, window, seed)  # as after a restart
    ranks = [fresh.sample_at(rank_positions(start, batch, rank)) for rank in range(world_size)]
    assert np.concatenate(ranks).tolist() == whole[start:].tolist()


@given(COUNTS, WINDOWS, st.integers(0, 10**12), st.integers(1, 60))
@MANY
def test_the_windows_of_a_batch_hold_all_its_shards_however_far_the_stream_is(counts, window, start, batch):
    stream = stream_of(counts, window)
    positions = start + np.arange(batch)
    first, last = stream.windows_of(positions)
    shards = np.repeat(np.arange(len(counts)), counts)[stream.sample_at(positions)]
    assert {*shards.tolist()} <= {shard for number in range(first, last + 1) for shard in stream.shards_of(number)}


@given(COUNTS, WINDOWS, SEEDS, st.integers(0, 10**6), st.integers(0, 50))
@MANY
def test_a_replacement_is_of_the_same_window(counts, window, seed, position, attempt):
    stream = stream_of(counts, window, seed)
    row = replacement(stream, position, attempt)
    number, _ = stream.windows_of(np.array([position]))
    assert int(np.repeat(np.arange(len(counts)), counts)[row]) in stream.shards_of(number)
    assert row == replacement(stream_of(counts, window, seed), position, attempt)


def test_replacements_reach_every_sample_of_the_window():
    stream = stream_of([5] * 8, 2)
    found = {replacement(stream, 3, attempt) for attempt in range(200)}
    assert len(found) == 10


@given(COUNTS, WINDOWS, st.data())
@MANY
def test_subset_and_block_draw_from_what_is_left_and_need_no_other_shard(tmp_path_factory, counts, window, data):
    dataset = remote(counts, window)
    rows = sorted(data.draw(st.sets(st.integers(0, len(dataset) - 1), min_size=1)))
    path = tmp_path_factory.mktemp("keys") / "subset"
    path.write_bytes(b"\n".join(dataset.index["key"][rows]))
    stream = WindowStream(dataset, Selection(subset=str(path)), 0)
    assert sorted(stream.sample_at(np.arange(stream.epoch_size)).tolist()) == rows
    assert stream.shards.tolist() == np.unique(dataset.index["shard"][rows]).tolist()
    assert stream.fingerprint()["selected"] != "all"


@pytest.mark.parametrize("selection", [{"per_class": 3}, {"balance": 0.5}])
def test_drawing_by_class_is_refused(selection):
    with pytest.raises(UserError, match="select.per_class and select.balance look for each class in all shards, which "
                                        "a dataset in object storage brings only 4 at a time; for s3://b/d leave"):
        stream_of([5] * 8, 4, **selection)


def test_one_window_of_all_shards_shuffles_as_the_whole():
    """Position against sample over 2,000 epochs of 24: each pair as often as by chance, chi-square within 4 sigma."""
    stream = stream_of([6, 6, 6, 6], 4)
    rows = stream.sample_at(np.arange(2000 * 24)).reshape(2000, 24)
    seen = np.stack([np.bincount(rows[:, place], minlength=24) for place in range(24)])
    chi = ((seen - 2000 / 24) ** 2 / (2000 / 24)).sum()
    assert abs(chi - 23 * 23) < 4 * np.sqrt(2 * 23 * 23)


def test_windows_mix_any_shards_and_any_sample_comes_at_any_place():
    """Two of eight shards a window: any two meet in 1 of 7 epochs, and any sample may open an epoch."""
    stream = stream_of([4] * 8, 2)
    epochs = 1500
    pairs = np.zeros((8, 8))
    for number in range(4 * epochs):
        pairs[np.ix_(stream.shards_of(number), stream.shards_of(number))] += 1
    together = pairs[np.triu_indices(8, 1)]
    assert np.abs(together - epochs / 7).max() < 4.5 * np.sqrt(epochs / 7)
    first = np.bincount(stream.sample_at(np.arange(epochs) * 32), minlength=32)
    assert np.abs(first - epochs / 32).max() < 4.5 * np.sqrt(epochs / 32)


def test_epochs_and_seeds_differ():
    rows = stream_of([50] * 10, 3, 0).sample_at(np.arange(1000)).reshape(2, 500)
    assert np.mean(rows[0] == rows[1]) < 0.05
    assert np.mean(rows[0] == stream_of([50] * 10, 3, 1).sample_at(np.arange(500))) < 0.05


@given(st.integers(1, 500), st.integers(1, 64))
def test_windows_are_as_few_as_can_be(shards, window):
    bounds = window_bounds(shards, window)
    assert bounds[0] == 0 and bounds[-1] == shards and len(bounds) - 1 == -(-shards // window)
    assert np.diff(bounds).min() >= 1 and np.ptp(np.diff(bounds)) <= 1


@given(COUNTS, WINDOWS)
@MANY
def test_evaluation_needs_the_shards_one_after_the_other(counts, window):
    schedule = EvaluationSchedule(remote(counts, window))
    shards = np.repeat(np.arange(len(counts)), counts)
    windows = [schedule.shards_of(number) for number in range(len(schedule.bounds) + 2)]
    assert sum(windows, []) == list(range(len(counts)))
    for start in range(0, len(shards), 7):
        rows = np.arange(start, min(start + 7, len(shards)))
        first, last = schedule.windows_of(rows)
        assert {*shards[rows].tolist()} <= {*sum(windows[first:last + 1], [])}
