"""Images that grow: the size is a function of the epoch, on any ranks and after any stop."""
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loader import GrowingSize, Loader
from shards import Dataset


@given(st.integers(1, 600), st.integers(0, 600), st.floats(0, 20), st.floats(0, 30))
def test_sizes_never_fall_and_keep_their_ends(first, more, epochs, epoch):
    sizes = GrowingSize(first, first + more, epochs)
    assert sizes.at(epochs) == sizes.at(epochs + 1) == first + more
    assert sizes.at(0) == (first if epochs else first + more)
    assert first <= sizes.at(epoch) <= sizes.at(epoch + 0.1) <= first + more
    assert sizes.at(epoch) % 32 == 0 or sizes.at(epoch) in (first, first + more)


def test_it_grows_linearly():
    assert [GrowingSize(128, 224, 3).at(epoch) for epoch in (0, 0.99, 1, 1.99, 2, 2.99, 3)] == [
        128, 128, 160, 160, 192, 192, 224]


@pytest.mark.parametrize("first, last", [(0, 224), (256, 224)])
def test_a_size_that_falls_is_refused(first, last):
    with pytest.raises(ValueError, match=f"the first size is {first} and the last {last}: give"):
        GrowingSize(first, last, 1)


def test_the_loader_follows_on_any_ranks_and_after_a_stop(dataset_path):
    """60 samples, batches of 24: the size of a global batch is that of its first position."""
    train, sizes = Dataset(dataset_path, "train"), GrowingSize(32, 96, 2)
    whole = Loader(train, batch_size=24, size=sizes)
    batches = list(itertools.islice(whole, 6))
    assert [len(batch.images[0]) for batch in batches] == [sizes.at(start / 60) for start in range(0, 144, 24)]
    assert {len(batch.images[0]) for batch in batches} == {32, 64, 96}
    begun = Loader(train, batch_size=24, size=sizes)
    list(itertools.islice(begun, 2))
    for rank in (0, 1):
        loader = Loader(train, batch_size=12, size=sizes, rank=rank, world_size=2)
        loader.load_state_dict(begun.state_dict())
        for batch, expected in zip(loader, batches[2:]):
            assert np.array_equal(batch.images, expected.images[rank * 12:][:12])
