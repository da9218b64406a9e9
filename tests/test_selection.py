"""What an epoch holds: exact counts, whatever the classes; the pages and the loader follow it."""
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcshard.console import UserError
from loader import Loader, Selection
from loader.order import sample_at
from loader.streams import Stream, shares
from shards import Dataset

CLASS_SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12)
SEEDS = st.integers(0, 2**32)


class Labeled(SimpleNamespace):
    """As much of a Dataset as a stream reads, with classes of the given sizes in a mixed order."""

    def __init__(self, class_sizes):
        labels = np.repeat(np.arange(len(class_sizes), dtype=np.int32), class_sizes)
        super().__init__(labels=np.random.default_rng(0).permutation(labels), path="d", split="train")
        self.index = np.array([(b"k%04d" % row,) for row in range(len(labels))], dtype=[("key", "S8")])

    def __len__(self):
        return len(self.labels)


def epochs(stream, number):
    """Rows of the first epochs, (number, epoch_size)."""
    return stream.sample_at(np.arange(number * stream.epoch_size)).reshape(number, -1)


@given(CLASS_SIZES, SEEDS)
@settings(max_examples=60)
def test_selecting_nothing_leaves_the_order_as_it_is(class_sizes, seed):
    stream = Stream(Labeled(class_sizes), Selection(), seed)
    positions = np.arange(3 * sum(class_sizes))
    assert np.array_equal(stream.sample_at(positions), sample_at(positions, sum(class_sizes), seed))


@given(CLASS_SIZES, st.integers(1, 50), SEEDS)
@settings(max_examples=60)
def test_a_capped_class_shows_as_many_as_allowed_and_all_images_equally_often(class_sizes, per_class, seed):
    dataset = Labeled(class_sizes)
    stream = Stream(dataset, Selection(per_class=per_class), seed)
    rows = epochs(stream, 6)
    for epoch in rows:
        assert np.bincount(dataset.labels[epoch]).tolist() == np.minimum(class_sizes, per_class).tolist()
        assert len(set(epoch.tolist())) >= len(epoch) - sum(n > per_class for n in class_sizes) * (per_class // 2), (
            "a class may begin its images anew within an epoch, and then repeats some")
    times = np.bincount(rows.ravel(), minlength=len(dataset))
    for label in range(len(class_sizes)):
        assert np.ptp(times[dataset.labels == label]) <= 1


@given(CLASS_SIZES, st.floats(0, 1), st.sampled_from([None, 5]), SEEDS)
@settings(max_examples=60)
def test_a_balanced_epoch_has_its_length_and_parts_by_the_power_law(class_sizes, balance, per_class, seed):
    dataset = Labeled(class_sizes)
    stream = Stream(dataset, Selection(balance=balance, per_class=per_class), seed)
    allowed = np.minimum(class_sizes, per_class or 10**9)
    assert stream.epoch_size == allowed.sum()
    parts = allowed.astype(float) ** balance
    rows = epochs(stream, 4)
    for epoch in rows:
        drawn = np.bincount(dataset.labels[epoch], minlength=len(class_sizes))
        assert np.all(np.abs(drawn - parts / parts.sum() * allowed.sum()) < 1) and drawn.min() >= 1
    times = np.bincount(rows.ravel(), minlength=len(dataset))
    for label in range(len(class_sizes)):
        assert np.ptp(times[dataset.labels == label]) <= 1


@given(CLASS_SIZES, st.sampled_from([Selection(per_class=3), Selection(balance=0), Selection(per_class=4, balance=.5)]))
@settings(max_examples=30)
def test_a_position_is_answered_alike_alone_and_in_any_company(class_sizes, selection):
    stream = Stream(Labeled(class_sizes), selection, 1)
    positions = np.random.default_rng(2).integers(0, 10**9, 20)
    alone = [int(stream.sample_at(positions[i:i + 1])[0]) for i in range(20)]
    assert stream.sample_at(positions).tolist() == alone


def test_classes_take_turns_within_an_epoch():
    """The order of a balanced epoch is as mixed as any: of two equal classes, about half of neighbors differ."""
    dataset = Labeled([1000, 1000])
    labels = dataset.labels[epochs(Stream(dataset, Selection(per_class=500), 0), 1)[0]]
    assert np.mean(labels[1:] != labels[:-1]) == pytest.approx(0.5, abs=0.07)  # 4 standard deviations of 999 throws


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30), st.integers(0, 1000))
def test_shares_are_whole_and_add_up(weights, total):
    weights = np.array(weights)
    parts = shares(weights, total)
    assert parts.sum() == total and np.all(np.abs(parts - weights / weights.sum() * total) < 1 + 1e-9)


@pytest.fixture
def train(dataset_path):
    return Dataset(dataset_path, "train")  # 60 samples


@pytest.fixture
def key_file(tmp_path, train):
    def write(name, rows):
        (tmp_path / name).write_bytes(b"\n".join(train.index["key"][rows]) + b"\n\nnot_in_the_dataset\n")
        return str(tmp_path / name)
    return write


def ids_of(loader, steps):
    return np.concatenate([batch.ids.numpy() for batch in itertools.islice(loader, steps)])


def test_subset_and_block_list_are_what_is_drawn(train, key_file):
    selection = Selection(subset=key_file("subset", range(20)), block=key_file("block", range(15, 40)))
    loader = Loader(train, batch_size=5, size=16, selection=selection)
    assert loader.stream.epoch_size == 15
    for epoch in ids_of(loader, 6).reshape(2, 15):
        assert sorted(epoch.tolist()) == list(range(15))


@pytest.mark.parametrize("selection", [{"per_class": 2}, {"balance": 0.0}, {"per_class": 3, "balance": 0.5}])
def test_any_number_of_ranks_and_a_resume_give_the_same_stream(train, selection):
    options = {"size": 16, "selection": Selection(**selection)}
    whole = ids_of(Loader(train, batch_size=12, **options), 6)
    begun = Loader(train, batch_size=12, **options)
    ids_of(begun, 2)
    parts = []
    for rank in range(3):
        loader = Loader(train, batch_size=4, rank=rank, world_size=3, **options)
        loader.load_state_dict(begun.state_dict())
        parts.append(ids_of(loader, 4).reshape(4, 4))
    assert np.concatenate(parts, axis=1).ravel().tolist() == whole[24:].tolist()


def test_a_state_of_another_selection_is_refused_but_a_moved_list_is_not(train, key_file):
    state = Loader(train, batch_size=5, size=16, selection=Selection(subset=key_file("a", range(20)))).state_dict()
    Loader(train, batch_size=5, size=16, selection=Selection(subset=key_file("b", range(20)))).load_state_dict(state)
    for other in (Selection(subset=key_file("c", range(1, 21))), Selection(),
                  Selection(subset=key_file("d", range(20)), per_class=2)):
        with pytest.raises(UserError, match="other data or views than it began with: .*(selected|per_class) was"):
            Loader(train, batch_size=5, size=16, selection=other).load_state_dict(state)


def test_evaluation_reads_all_whatever_is_selected(train):
    loader = Loader(train, batch_size=60, size=16, train=False, selection=Selection(per_class=1))
    assert ids_of(loader, 1).tolist() == list(range(60))


@pytest.mark.parametrize("wrong, sentence", [
    ({"per_class": 0}, "select.per_class is 0: give 1 or more, or null"),
    ({"balance": 1.5}, "select.balance is 1.5: give 0 to 1"),
    ({"balance": -0.1}, "select.balance is -0.1: give 0 to 1"),
])
def test_impossible_selections_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Selection(**wrong)


def test_a_list_that_cannot_be_read_or_leaves_nothing_is_one_sentence(train, tmp_path, key_file):
    with pytest.raises(UserError, match=r"none cannot be read \(No such file or directory\): .* one key on each line"):
        Stream(train, Selection(subset=str(tmp_path / "none")), 0)
    (tmp_path / "others").write_text("x\n")
    for selection in (Selection(subset=str(tmp_path / "others")), Selection(block=key_file("all", range(60)))):
        with pytest.raises(UserError, match="leave none of the 60 photos of split train in .* to train on: "
                                            "give a key on each line, such as "):
            Stream(train, selection, 0)
