"""Several datasets drawn as one: how often each photo comes, what its label is, and that nothing else changes."""
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcshard import checkpoint
from arcshard.console import UserError
from loader import Loader, Selection
from loader.mixture import MixedStream, Mixture, join_classes
from loader.pipeline import largest_photo
from loader.streams import Stream
from preprocess.engine import Engine
from preprocess.packing.options import PackOptions
from preprocess.packing.pack import pack
from shards import Dataset

MEMBERS = st.lists(st.tuples(st.integers(1, 60), st.floats(0.05, 3)), min_size=1, max_size=4)


class Member(SimpleNamespace):
    """As much of a Dataset as a mixture's stream reads: each photo a class of its own."""

    def __init__(self, number, size):
        super().__init__(path=f"d{number}", split="train", labels=np.arange(size, dtype=np.int32),
                         index=np.arange(size), landmark_ids=[f"{number}.{row}" for row in range(size)])

    def __len__(self):
        return len(self.labels)


def members(sizes):
    return [Member(number, size) for number, size in enumerate(sizes)]


@given(st.integers(1, 60), MEMBERS, st.integers(0, 2**40))
@settings(max_examples=60)
def test_an_epoch_shows_each_photo_as_often_as_asked(first, others, seed):
    sizes, times = [first, *(size for size, _ in others)], [1.0, *(t for _, t in others)]
    stream = MixedStream(Mixture(members(sizes)), Selection(mix={f"d{n}": t for n, t in enumerate(times[1:], 1)}), seed)
    quotas = [max(1, round(size * t)) for size, t in zip(sizes, times)]
    assert stream.epoch_size == sum(quotas)
    rows = stream.sample_at(np.arange(5 * stream.epoch_size)).reshape(5, -1)
    member = np.repeat(np.arange(len(sizes)), sizes)
    for epoch in rows:
        assert np.bincount(member[epoch], minlength=len(sizes)).tolist() == quotas
        assert sorted(epoch[member[epoch] == 0].tolist()) == list(range(first)), "the first dataset once an epoch"
    shown = np.bincount(rows.ravel(), minlength=sum(sizes))
    for n in range(len(sizes)):
        assert np.ptp(shown[member == n]) <= 1, "photos of a dataset are shown equally often"


@given(st.integers(1, 40), MEMBERS)
@settings(max_examples=30)
def test_a_position_is_answered_alike_alone_and_in_any_company(first, others):
    mixture = Mixture(members([first, *(size for size, _ in others)]))
    stream = MixedStream(mixture, Selection(mix={str(n): t for n, (_, t) in enumerate(others)}), 3)
    positions = np.random.default_rng(0).integers(0, 10**9, 20)
    alone = [int(stream.sample_at(positions[i:i + 1])[0]) for i in range(20)]
    assert stream.sample_at(positions).tolist() == alone


def test_the_datasets_take_turns_within_an_epoch():
    mixture = Mixture(members([1000, 1000]))
    member = MixedStream(mixture, Selection(mix={"b": 1.0}), 0).sample_at(np.arange(2000)) >= 1000
    assert np.mean(member[1:] != member[:-1]) == pytest.approx(0.5, abs=0.05)  # 4 standard deviations of 1999 throws


def test_datasets_of_one_size_are_not_drawn_in_one_order():
    mixture = Mixture(members([200, 200]))
    rows = MixedStream(mixture, Selection(mix={"b": 1.0}), 0).sample_at(np.arange(400))
    first, second = rows[rows < 200], rows[rows >= 200] - 200
    assert (first == second).sum() < 10  # of two random orders: Poisson with mean 1


@given(st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), min_size=1, max_size=4))
def test_classes_join_by_landmark_and_the_first_dataset_keeps_its_labels(ids):
    names, maps = join_classes([[str(i) for i in part] for part in ids])
    assert names[:len(ids[0])] == [str(i) for i in ids[0]] and len(set(names)) == len(names)
    assert set(names) == {str(i) for part in ids for i in part}
    for part, new in zip(ids, maps):
        assert [names[label] for label in new[:-1]] == [str(i) for i in part] and new[-1] == -1


@pytest.fixture(scope="module")
def other_path(photos, tmp_path_factory):
    """Another dataset of the same photos: classes 3 to 5 under their landmark ids, the rest renamed, no val."""
    folder, samples = photos
    rows = samples[samples["split"] == "train"].copy()
    rows["landmark_id"] = np.where(rows["label"] < 3, "9" + rows["landmark_id"], rows["landmark_id"])
    rows["label"] = rows["landmark_id"].rank(method="dense").astype(int) - 1
    out = tmp_path_factory.mktemp("other") / "dataset"
    pack(rows, [folder], out, PackOptions(shard_size=25), Engine())
    return out


@pytest.fixture
def train(dataset_path):
    return Dataset(dataset_path, "train")  # 60 samples, 6 classes


def batches_of(loader, steps):
    return list(itertools.islice(loader, steps))


def test_what_a_loader_hands_out_is_each_dataset_s_photo_under_the_joint_label(train, other_path):
    other = Dataset(other_path, "train")
    loader = Loader(train, batch_size=30, size=16, selection=Selection(mix={str(other_path): 0.5}))
    assert loader.stream.epoch_size == 90 and loader.dataset.num_classes == 9
    batches = batches_of(loader, 3)
    ids = np.concatenate([batch.ids for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    assert np.sort(ids[ids < 60]).tolist() == list(range(60)) and (ids >= 60).sum() == 30
    for row, label in zip(ids.tolist(), labels.tolist()):
        dataset, own = (train, row) if row < 60 else (other, row - 60)
        assert loader.dataset.landmark_ids[label] == dataset.landmark_ids[dataset.labels[own]]
        assert loader.dataset.checked_view(row).tobytes() == dataset.read(own)
        assert loader.dataset.index[np.array([row])]["key"][0] == dataset.index["key"][own]
    assert largest_photo(loader.dataset, batch_size=30) == (200, 150)


def test_any_number_of_ranks_and_a_resume_give_the_same_stream(train, other_path):
    options = {"size": 16, "selection": Selection(mix={str(other_path): 1.5}, per_class=4)}
    whole = np.concatenate([batch.ids for batch in batches_of(Loader(train, batch_size=12, **options), 7)])
    begun = Loader(train, batch_size=12, **options)
    batches_of(begun, 3)
    parts = []
    for rank in range(2):
        loader = Loader(train, batch_size=6, rank=rank, world_size=2, **options)
        loader.load_state_dict(begun.state_dict())
        parts.append(np.stack([batch.ids for batch in batches_of(loader, 4)]))
    assert np.concatenate(parts, axis=1).ravel().tolist() == whole[36:].tolist()


def test_a_state_of_another_mixture_is_refused(train, other_path):
    mix = {str(other_path): 0.5}
    state = Loader(train, batch_size=5, size=16, selection=Selection(mix=mix)).state_dict()
    with pytest.raises(UserError, match=r"mix was \[0.5\] and is None"):
        Loader(train, batch_size=5, size=16).load_state_dict(state)
    with pytest.raises(UserError, match=r"mix was \[0.5\] and is \[0.25\]"):
        Loader(train, batch_size=5, size=16, selection=Selection(mix={str(other_path): 0.25})).load_state_dict(state)


def test_nothing_mixed_is_the_dataset_as_it_was(train):
    loader = Loader(train, batch_size=5, size=16)
    assert loader.dataset is train and isinstance(loader.stream, Stream)


def test_evaluation_mixes_nothing(train, other_path):
    loader = Loader(train, batch_size=60, size=16, train=False, selection=Selection(mix={str(other_path): 1.0}))
    assert batches_of(loader, 2)[0].ids.tolist() == list(range(60))


def test_a_list_of_keys_applies_to_each_dataset(train, other_path, tmp_path):
    (tmp_path / "block").write_bytes(b"\n".join(train.index["key"][:20]))
    loader = Loader(train, batch_size=8, size=16,
                    selection=Selection(mix={str(other_path): 1.0}, block=str(tmp_path / "block")))
    assert loader.stream.epoch_size == 80 and len(loader.stream.rows()) == 80
    blocked = set(train.index["key"][:20].tolist())
    assert not blocked & set(loader.dataset.index[loader.stream.rows()]["key"].tolist())


def test_wrong_mixtures_are_one_sentence(train, tmp_path):
    with pytest.raises(ValueError, match="select.mix of x is 0: give how many times"):
        Selection(mix={"x": 0})
    with pytest.raises(UserError, match="there is no folder"):
        Loader(train, batch_size=4, size=16, selection=Selection(mix={str(tmp_path / "none"): 1.0}))


def test_training_on_a_mixture_learns_the_joint_classes(call, dataset_path, other_path, tmp_path):
    words = ["train.py", "--data", dataset_path, "--out", tmp_path / "run", "--model.backbone", "test_efficientnet",
             "--model.weights", "none", "--model.dim", "16", "--train.size", "32", "--train.global_batch", "20",
             "--train.epochs", "0.5", "--train.device", "cpu", "--loader.tune", "true"]
    done = call(*words, "--select.mix", f'{{"{other_path}": 0.5}}')
    assert done.returncode == 0, done.stderr
    assert "fastest on this rank: num_threads " in done.stdout and "trained 60 images" in done.stdout
    assert checkpoint.load(tmp_path / "run").weights.head["weight"].shape == (9, 16)
