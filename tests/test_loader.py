import gc
import io
import itertools
import os
import shutil
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvidia.dali import Pipeline
from PIL import Image

import loader.pipeline as pipeline
from arcshard.console import UserError
from loader import GrowingSize, Loader, Selection, View
from loader.augment import draw_crops, draw_flips
from loader.order import sample_at
from loader.pipeline import Resources, build_pipeline
from shards import CorruptSample, Dataset

VIEW = View(brightness=0.3)


@pytest.fixture
def train(dataset_path):
    return Dataset(dataset_path, "train")  # 60 samples


def first(loader, steps):
    return list(itertools.islice(loader, steps))


def joined(batches, field):
    return torch.cat([getattr(batch, field) for batch in batches])


def assert_same(one, other):
    for field in ("images", "labels", "ids", "jitter"):
        assert torch.equal(joined(one, field), joined(other, field)), field


def test_a_batch_is_what_the_contract_says(train):
    batch, = first(Loader(train, batch_size=8, size=48), 1)
    assert batch.images.shape == (8, 48, 48, 3) and batch.images.dtype == torch.uint8
    assert batch.labels.dtype == batch.ids.dtype == torch.int64 and batch.wait > 0 and batch.replaced == 0
    assert batch.ids.tolist() == sample_at(np.arange(8), len(train), 0).tolist()
    assert batch.labels.tolist() == train.labels[batch.ids.numpy()].tolist()
    assert torch.equal(batch.jitter, torch.ones(8, 3)), "the default view has no color jitter"


def test_each_sample_once_an_epoch_across_batches_that_straddle_its_end(train):
    ids = joined(first(Loader(train, batch_size=7, size=16), 60), "ids")[:7 * 60 // 60 * 60]
    for epoch in ids.reshape(7, 60):
        assert sorted(epoch.tolist()) == list(range(60))


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_any_number_of_ranks_gives_the_same_pixels(train, world_size):
    one = first(Loader(train, batch_size=24, size=32, seed=3, view=VIEW), 4)
    ranks = [first(Loader(train, batch_size=24 // world_size, size=32, seed=3, view=VIEW, rank=rank,
                          world_size=world_size, num_threads=1 + rank % 2), 4) for rank in range(world_size)]
    assert_same(one, list(itertools.chain(*zip(*ranks))))


def test_resume_in_mid_epoch_on_other_ranks_continues_the_same_stream(train):
    whole = first(Loader(train, batch_size=12, size=32, view=VIEW), 9)
    begun = Loader(train, batch_size=12, size=32, view=VIEW)
    first(begun, 4)
    state = begun.state_dict()
    assert state["position"] == 48, "what was handed out counts, not what was prefetched"
    halves = []
    for rank in (0, 1):
        loader = Loader(train, batch_size=6, size=32, view=VIEW, rank=rank, world_size=2)
        loader.load_state_dict(state)
        halves.append(first(loader, 5))
        assert loader.state_dict()["position"] == 108
    assert_same(whole[4:], list(itertools.chain(*zip(*halves))))


COLORS = View(brightness=0.3, rotate=10, cutout=0.5, jpeg=(60, 90))
WORLDS = st.lists(st.tuples(st.sampled_from([1, 2, 3, 8]), st.integers(1, 7), st.integers(1, 4)), min_size=1,
                  max_size=6)


def drawn(plan):
    """All that a plan says of each of its samples, one row a sample."""
    size = np.full((len(plan.ids), 1), plan.size)
    return np.concatenate([plan.ids[:, None], plan.boxes, plan.matrices.reshape(-1, 6), plan.flips[:, None],
                           plan.qualities[:, None], plan.jitter, size], axis=1)


@given(WORLDS, st.sampled_from([Selection(), Selection(per_class=4, balance=0.5)]), st.integers(0, 2**40))
@settings(max_examples=40)
def test_worlds_and_batches_may_change_at_any_step(dataset_path, worlds, selection, seed):
    """(world size, batch of a rank, steps) after one another: photos, crops, flips, colors are those of one rank."""
    train, options = Dataset(dataset_path, "train"), {"size": 64, "view": COLORS, "selection": selection, "seed": seed}
    sequence, state = [], None
    with ThreadPoolExecutor(1) as pool:
        for world_size, batch_size, steps in worlds:
            ranks = [Loader(train, batch_size=batch_size, rank=r, world_size=world_size, **options)
                     for r in range(world_size)]
            for loader in ranks:
                loader.load_state_dict(state or loader.state_dict())
            for parts in itertools.islice(zip(*(loader.planned(pool) for loader in ranks)), steps):
                sequence += [drawn(plan) for plan, _ in parts]
                ends = {plan.end for plan, _ in parts}
            state = {**ranks[0].state_dict(), "position": ends.pop()}
            assert not ends, "all ranks end a step at one position"
        whole, _ = next(Loader(train, batch_size=state["position"], **options).planned(pool))
    assert np.array_equal(np.concatenate(sequence), drawn(whole))


@pytest.mark.parametrize("prefetch, num_threads", [(1, 1), (3, 2), (5, 4)])
def test_neither_prefetching_nor_threads_show(train, monkeypatch, prefetch, num_threads):
    options = {"batch_size": 7, "size": GrowingSize(32, 64, 0.5), "view": COLORS}
    usual = first(Loader(train, **options), 6)
    monkeypatch.setattr(pipeline, "PREFETCH", prefetch)
    loader = Loader(train, **options, num_threads=num_threads)
    for one, other in zip(usual, loader):
        assert_same([one], [other])
    assert loader.position == 7 * 6, "what was handed out counts, not what was prefetched"


def test_position_moves_before_the_batch_is_yielded(train):
    loader = Loader(train, batch_size=5, size=16)
    for number, _ in zip(range(1, 4), loader):
        assert loader.position == 5 * number


def test_iterating_again_goes_on_where_the_last_iterator_stopped(train):
    loader = Loader(train, batch_size=10, size=16)
    twice = first(loader, 2) + first(loader, 2)
    assert_same(twice, first(Loader(train, batch_size=10, size=16), 4))


@pytest.mark.parametrize("change, named", [
    ({"seed": 1}, "seed was 0 and is 1"),
    ({"size": 40}, "size was 32 and is 40"),
    ({"view": View(area=(0.5, 1.0))}, r"area was \[0.1, 1.0\] and is \[0.5, 1.0\]"),
])
def test_a_state_of_other_views_is_refused_with_what_differs(train, change, named):
    state = Loader(train, batch_size=4, size=32).state_dict()
    with pytest.raises(UserError, match=named):
        Loader(train, **{"batch_size": 4, "size": 32, **change}).load_state_dict(state)


def test_a_state_of_a_version_with_fewer_view_options_continues_with_their_defaults(train):
    """Only the default draws what that version drew."""
    state = Loader(train, batch_size=4, size=32).state_dict()
    del state["fingerprint"]["jpeg_chance"], state["fingerprint"]["shift_of"]
    Loader(train, batch_size=4, size=32).load_state_dict(state)
    with pytest.raises(UserError, match="shift_of was 'box' and is 'image'"):
        Loader(train, batch_size=4, size=32, view=View(shift_of="image")).load_state_dict(state)


def test_a_state_of_another_split_is_refused(dataset_path, train):
    state = Loader(train, batch_size=4, size=32).state_dict()
    with pytest.raises(UserError, match="split was 'train' and is 'val'"):
        Loader(Dataset(dataset_path, "val"), batch_size=4, size=32).load_state_dict(state)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [7, 20, 100])
def test_evaluation_reads_each_sample_once_in_order(train, world_size, batch_size):
    ranks = [[batch.ids for batch in Loader(train, batch_size=batch_size, size=16, train=False, rank=rank,
                                            world_size=world_size)] for rank in range(world_size)]
    in_order = [ids for step in itertools.zip_longest(*ranks) for ids in step if ids is not None]
    assert torch.cat(in_order).tolist() == list(range(60))


def pil_twin(dataset, sample, box, flip, size):
    """The crop, resized by the definition of linear interpolation with half-pixel centers, in float64."""
    x, y, w, h = box
    pixels = np.asarray(Image.open(io.BytesIO(dataset.read(sample))).convert("RGB"), np.float64)[y:y + h, x:x + w]
    for axis, length in ((0, h), (1, w)):
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(np.floor(at).astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        share = (at - low).reshape([-1 if a == axis else 1 for a in range(3)])
        pixels = np.take(pixels, low, axis) * (1 - share) + np.take(pixels, high, axis) * share
    return pixels[:, ::-1] if flip else pixels


def test_pixels_equal_a_plain_reference(train):
    """DALI's decode of the crop and OpenCV's resize against PIL and float64 arithmetic, gray levels."""
    positions = np.arange(16)
    batch, = first(Loader(train, batch_size=16, size=64, seed=9), 1)
    ids = sample_at(positions, len(train), 9)
    rows = train.index[ids]
    boxes = draw_crops(View(), 9, positions, rows["width"], rows["height"])
    flips = draw_flips(View(), 9, positions)
    assert flips.any() and not flips.all()
    for image, sample, box, flip in zip(batch.images.numpy(), ids, boxes, flips):
        error = np.abs(image - pil_twin(train, int(sample), box, flip, 64))
        assert error.mean() < 0.7 and error.max() < 16


def test_the_gpu_graph_decodes_on_the_hardware_path_and_resizes_on_the_gpu():
    """Serialized without a GPU: image_slice is `mixed`, resize and flip are `gpu`."""
    graph = build_pipeline(lambda: None, Resources("gpu", 8, 2), View()).serialize()
    for operator, device in ((b"ImageSlice", b"mixed"), (b"Resize", b"gpu"), (b"Flip", b"gpu")):
        start = graph.index(operator)
        assert device in graph[start:start + 400], operator
    assert b"mixed" not in build_pipeline(lambda: None, Resources("cpu", 8, 2), View()).serialize()


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_decoder_is_told_to_interpolate_chroma(device):
    """DALI serializes an argument as its name, its type and its value: here field 6, a varint of 1."""
    graph = build_pipeline(lambda: None, Resources(device, 8, 2), View()).serialize()
    assert b"jpeg_fancy_upsampling\x12\x04bool\x30\x01" in graph


def flip_bit(dataset, sample):
    """Flip one bit in the middle of a sample's JPEG: most such damage decodes without a word."""
    row = dataset.index[sample]
    with open(dataset.path / f"train-{row['shard']:06d}.tar", "r+b") as f:
        f.seek(int(row["offset"] + row["size"] // 2))
        byte = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte ^ 0x10]))


@pytest.fixture
def corrupt(dataset_path, tmp_path):
    """A copy of the dataset in which train sample 5 was damaged after packing."""
    shutil.copytree(dataset_path, tmp_path / "corrupt")
    flip_bit(Dataset(tmp_path / "corrupt", "train"), 5)
    return Dataset(tmp_path / "corrupt", "train")


def test_a_sample_damaged_while_the_loader_runs_is_replaced_from_then_on(train, dataset_path, tmp_path, capfd):
    """The last of the first epoch, 45 positions after those that were handed out: further than any prefetch."""
    shutil.copytree(dataset_path, tmp_path / "damaged")
    damaged, late = Dataset(tmp_path / "damaged", "train"), int(sample_at(np.array([59]), 60, 0)[0])
    running = iter(Loader(damaged, batch_size=5, size=32))
    batches = list(itertools.islice(running, 3))
    flip_bit(damaged, late)
    batches += itertools.islice(running, 33)
    sound = first(Loader(train, batch_size=5, size=32), 36)
    ids, expected = joined(batches, "ids"), joined(sound, "ids")
    changed = ids != expected
    assert torch.equal(changed, expected == late) and changed.sum() == 3
    assert torch.equal(joined(batches, "images")[~changed], joined(sound, "images")[~changed])
    assert train.index["key"][late].decode() in capfd.readouterr().err


def test_a_corrupt_sample_is_named_and_replaced_and_nothing_else_changes(train, corrupt, capfd):
    sound = first(Loader(train, batch_size=20, size=32), 3)
    batches = first(Loader(corrupt, batch_size=20, size=32), 3)
    ids, expected = joined(batches, "ids"), joined(sound, "ids")
    at = (expected == 5).nonzero().item()
    assert (ids != expected).nonzero().flatten().tolist() == [at] and sum(b.replaced for b in batches) == 1
    others = torch.arange(60) != at
    assert torch.equal(joined(batches, "images")[others], joined(sound, "images")[others])
    key = train.index["key"][5].decode()
    said = capfd.readouterr().err
    assert key in said and "train-000000.tar" in said and str(train.index["offset"][5]) in said


def test_the_replacement_comes_from_what_is_selected(corrupt, tmp_path):
    """Of four samples, one corrupt: whatever takes its place is one of the other three."""
    (tmp_path / "subset").write_bytes(b"\n".join(corrupt.index["key"][4:8]))
    batches = first(Loader(corrupt, batch_size=20, size=16, selection=Selection(subset=str(tmp_path / "subset"))), 2)
    assert sum(batch.replaced for batch in batches) == 10 and set(joined(batches, "ids").tolist()) == {4, 6, 7}


def test_the_replacement_is_the_same_on_any_rank(corrupt):
    one = joined(first(Loader(corrupt, batch_size=20, size=16), 3), "ids")
    ranks = [first(Loader(corrupt, batch_size=10, size=16, rank=r, world_size=2), 3) for r in (0, 1)]
    assert torch.equal(one, joined(list(itertools.chain(*zip(*ranks))), "ids"))


def test_evaluation_does_not_replace_but_stops_at_a_corrupt_sample(corrupt):
    with pytest.raises(CorruptSample, match=corrupt.index["key"][5].decode()):
        list(Loader(corrupt, batch_size=20, size=16, train=False))


@pytest.mark.parametrize("field, change", [("width", lambda width: 9 * width), ("height", lambda height: 2**31 - 1),
                                           ("width", lambda width: 0), ("offset", lambda offset: offset - 512),
                                           ("size", lambda size: size // 2), ("size", lambda size: 0)])
@pytest.mark.parametrize("train_mode", [True, False])
def test_an_index_made_by_hand_is_refused_where_no_photo_is(train, field, change, train_mode):
    """Its checksums are right for what it names: another size, another member, a part of one."""
    index = np.array(train.index)
    index[field][7] = change(index[field][7])
    index["crc32"][7] = zlib.crc32(train.shard(index["shard"][7])[index["offset"][7]:][:index["size"][7]].tobytes())
    train.index = index
    with pytest.raises(CorruptSample, match=f"sample {index['key'][7].decode()} of split train is not the photo of"):
        first(Loader(train, batch_size=20, size=16, train=train_mode), 3)


def leave(loader, why):
    """Stop to use it as users do."""
    if why == "never begun":
        return iter(loader) and None
    batches = iter(loader)
    next(batches)
    if why != "dropped":
        raise why


@pytest.mark.parametrize("why", ["dropped", "never begun", RuntimeError, KeyboardInterrupt], ids=str)
@pytest.mark.parametrize("train_mode", [True, False])
def test_however_a_loop_ends_it_leaves_no_thread_file_map_or_pipeline(dataset_path, why, train_mode):
    def use():
        loader = Loader(Dataset(dataset_path, "train"), batch_size=8, size=16, train=train_mode)
        if isinstance(why, str):
            leave(loader, why)
        else:
            with pytest.raises(why):
                leave(loader, why)

    def count():
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count(str(dataset_path))
        return (threading.active_count(), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), maps,
                sum(type(thing) is Pipeline for thing in gc.get_objects()))

    for _ in range(3):  # the first use opens what the libraries keep
        use()
    before = count()
    for _ in range(20):
        use()
    assert count() == before


def test_evaluation_reads_any_rising_rows(train):
    whole = torch.cat([batch.images for batch in Loader(train, batch_size=16, size=16, train=False)])
    for rank, expected in enumerate([[0, 1, 9, 20], [5, 6, 41]]):  # their parts of two global batches
        some = [*Loader(train, batch_size=2, size=16, train=False, rows=np.array([0, 1, 5, 6, 9, 20, 41]), rank=rank,
                        world_size=2)]
        assert torch.cat([batch.ids for batch in some]).tolist() == expected
        assert torch.equal(torch.cat([batch.images for batch in some]), whole[expected])


@pytest.mark.parametrize("wrong, sentence", [
    ({"dataset": "data/demo"}, r"dataset is data/demo: give a Dataset, as in Loader\(Dataset\(path\)"),
    ({"device": "tpu"}, "device is tpu: give"), ({"device": torch.device("cuda:1")}, "device is cuda:1: give"),
    ({"rank": 2, "world_size": 2}, "rank is 2 of 2: give 0 to world_size - 1"), ({"rank": 0.5}, "rank is 0.5: give"),
    ({"world_size": 0}, "world_size is 0: give a whole number from 1 on"),
    ({"batch_size": 0}, "batch_size is 0: give a whole number from 1 on"), ({"batch_size": 2.5}, "batch_size is 2.5"),
    ({"size": 0}, "size is 0: give a whole"), ({"size": (32, 48)}, r"size is \(32, 48\): give a whole number"),
    ({"size": "32"}, "size is 32: give a whole"), ({"size": 32.0}, "size is 32: give a whole"),
    ({"seed": None}, "seed is null: give a whole number"), ({"num_threads": 1.5}, "num_threads is 1.5: give a whole"),
    ({"rows": [2, 1], "train": False}, r"rows is \[2, 1\]: give rising numbers"),
    ({"rows": range(9)}, "rows is range.*, with train=False"),
    ({"view": {}}, "view is {}: give a View"), ({"selection": {}}, "selection is {}: give a Selection"),
])
def test_impossible_arguments_are_refused(train, wrong, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        Loader(**{"dataset": train, "batch_size": 4, "size": 16, **wrong})


def test_whole_numbers_may_be_numpys_and_the_device_torchs(train):
    given = Loader(train, batch_size=np.int64(4), size=np.int32(16), seed=np.uint8(3), device=torch.device("cpu"))
    usual = Loader(train, batch_size=4, size=16, seed=3)
    assert given.state_dict() == usual.state_dict()
    assert {type(value) for value in given.state_dict()["fingerprint"].values()} <= {int, float, str, list, type(None)}
    assert torch.equal(next(iter(given)).images, next(iter(usual)).images)


def test_a_gpu_may_be_named_as_torch_does(train):
    assert {Loader(train, batch_size=4, size=16, device=device).device
            for device in ("gpu", "cuda", torch.device("cuda"))} == {"gpu"}
