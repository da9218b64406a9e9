"""The loader's own settings: the fastest is taken, and nothing of the sequence changes."""
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader import Loader, LoaderConfig, tuning
from loader.augment import View
from loader.pipeline import RESERVED, Resources, build_pipeline, largest_photo
from loader.tuning import Trial, thread_counts, tune
from shards import Dataset
from shards.format import INDEX_DTYPE


@pytest.fixture
def train(dataset_path):
    return Dataset(dataset_path, "train")  # 60 samples


def rates(monkeypatch, of):
    """Let each trial find the rate that `of` says of its setting; what was tried is appended to the list returned."""
    tried = []

    def trial(loader, num_threads, load, seconds):
        tried.append((num_threads, load))
        return Trial(num_threads, load, of(num_threads, load))

    monkeypatch.setattr(tuning, "trial", trial)
    return tried


def test_the_fastest_threads_are_taken_and_the_jpeg_engine_tried_with_them(train, monkeypatch):
    monkeypatch.setattr(tuning, "share_of_cores", lambda: 6)
    tried = rates(monkeypatch, lambda threads, load: 100 - abs(threads - 4) + (load == 0.99))
    loader = Loader(train, batch_size=4, size=16, device="gpu")
    trials = tune(loader)
    assert tried == [(1, 0.9), (2, 0.9), (4, 0.9), (6, 0.9), (4, 0.65), (4, 0.8), (4, 0.99)]
    assert trials[0] == Trial(4, 0.99, 101.0) and (loader.num_threads, loader.hw_decoder_load) == (4, 0.99)
    assert str(trials[0]) == "num_threads 4, hw_decoder_load 0.99: 101 images/s"


def test_without_a_gpu_only_threads_are_tried(train, monkeypatch):
    monkeypatch.setattr(tuning, "share_of_cores", lambda: 2)
    tried = rates(monkeypatch, lambda threads, load: threads)
    tune(Loader(train, batch_size=4, size=16))
    assert tried == [(1, 0.9), (2, 0.9)]


def test_of_equally_fast_settings_the_first_stays(train, monkeypatch):
    rates(monkeypatch, lambda threads, load: 1.0)
    loader = Loader(train, batch_size=4, size=16)
    tune(loader)
    assert loader.num_threads == 1


def test_a_loader_that_was_tuned_goes_on_where_it_stood(train):
    untouched, tuned = (Loader(train, batch_size=8, size=16) for _ in range(2))
    for loader in (untouched, tuned):
        list(itertools.islice(loader, 3))
    trials = tune(tuned, seconds=0)
    assert tuned.position == 24 and all(t.images_per_s > 0 for t in trials)
    for one, other in zip(itertools.islice(untouched, 2), tuned):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.images, other.images)


@pytest.mark.parametrize("cores, counts", [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_threads_worth_trying(cores, counts):
    assert thread_counts(cores) == counts


def test_the_largest_photo_is_that_of_the_index(train):
    assert largest_photo(train, batch_size=8) == (200, 150)


def dataset_of(sides):
    """What largest_photo reads of a dataset with photos of these widths and heights."""
    index = np.zeros(len(sides), INDEX_DTYPE)
    index["width"], index["height"] = np.array(sides).T
    return SimpleNamespace(index=index)


def test_a_panorama_and_a_portrait_reserve_no_photo_as_wide_and_as_high_as_both():
    sides = [(800, 600), (6000, 900), (1000, 4000)]
    assert largest_photo(dataset_of(sides), batch_size=64) == (6000, 900)
    width, height = largest_photo(dataset_of(sides), batch_size=256)
    assert 3 * 256 * width * height == pytest.approx(RESERVED, rel=0.01)
    assert width / height == pytest.approx(6000 / 900, rel=0.01)


SIDE = st.integers(1, 65_500)  # pixels, what JPEG allows


@given(st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=20), st.integers(1, 4096))
def test_what_is_reserved_has_a_limit_and_up_to_it_room_for_every_photo(sides, batch_size):
    width, height = largest_photo(dataset_of(sides), batch_size)
    areas = [w * h for w, h in sides]
    assert width >= 1 and height >= 1 and 3 * batch_size * width * height <= RESERVED
    assert width * height == max(areas) or 3 * batch_size * max(areas) > RESERVED


def test_the_gpu_graph_reserves_memory_and_splits_the_batch_as_told():
    """DALI serializes an argument as its name and its value (float32, varint)."""
    graph = build_pipeline(lambda: None, Resources("gpu", 8, 2, 0.875, (401, 302)), View()).serialize()
    for name, value in ((b"hw_decoder_load", np.float32(0.875).tobytes()), (b"preallocate_width_hint", b"\x91\x03"),
                        (b"preallocate_height_hint", b"\xae\x02")):
        start = graph.index(name)
        assert value in graph[start:start + 60], name


@pytest.mark.parametrize("wrong, sentence", [
    ({"num_threads": 0}, "loader.num_threads is 0: give a positive number, or null"),
    ({"hw_decoder_load": 1.5}, "loader.hw_decoder_load is 1.5: give a share"),
])
def test_impossible_settings_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        LoaderConfig(**wrong)
